"""A node's session service (spec/protocol.md 5.1): the caller's identity, beside the `describe` of every peer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from haptera.node.services.submitters import submitter_of
from haptera.peer import Request, SessionService, has_no_argument, link_of

if TYPE_CHECKING:
    from haptera.node.metrics import Metrics


class NodeSessionService(SessionService):
    """Answers `whoami` with {user, roles, mechanism, secure}; without users every caller is the anonymous one."""

    def __init__(self, metrics: Metrics) -> None:
        self._requests = metrics.requests(self.name, self.methods())

    def methods(self) -> list[str]:
        """The methods' names, for `describe`."""
        return [*super().methods(), "whoami"]

    def handle(self, requests: list[Request]) -> None:
        """Answer each at once."""
        others = []
        for request in requests:
            if request.method in self._requests:
                self._requests[request.method] += 1
            if request.method != "whoami":
                others.append(request)
            elif has_no_argument(request):
                mechanism = "PSK" if "hmac_sha256" in request.peer.capabilities else ""
                secure = link_of(request.peer).tls is not None
                answer = {
                    "user": submitter_of(request.peer).user,
                    "roles": [],
                    "mechanism": mechanism,
                    "secure": secure,
                }
                request.respond(msgspec.msgpack.encode(answer))
        if others:
            super().handle(others)
