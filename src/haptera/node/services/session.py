"""A node's session service (spec/protocol.md 5.1): the caller's identity, beside the `describe` of every peer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from haptera.node.services.submitters import submitter_of
from haptera.peer import Request, SessionService, has_no_argument, link_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from haptera.node.metrics import Metrics
    from haptera.peer import Peer


class NodeSessionService(SessionService):
    """Answers `whoami` with {user, roles, mechanism, secure}; without users every caller is the anonymous one."""

    def __init__(self, metrics: Metrics, roles_of: Callable[[str], Sequence[str]]) -> None:
        self._requests = metrics.requests(self.name, self.methods())
        self._roles_of = roles_of

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
                user = submitter_of(request.peer).user
                answer = {
                    "user": user,
                    "roles": self._roles_of(user),
                    "mechanism": _mechanism(request.peer),
                    "secure": link_of(request.peer).tls is not None,
                }
                request.respond(msgspec.msgpack.encode(answer))
        if others:
            super().handle(others)


def _mechanism(peer: Peer) -> str:
    """The mechanism that has proved who the peer is; frames that are signed from the first one on do, too."""
    if peer.identity is not None and peer.identity.mechanism:
        return peer.identity.mechanism
    return "PSK" if "hmac_sha256" in peer.capabilities else ""
