"""The ``session`` service that every peer hosts (spec/protocol.md, section 5.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from haptera.connection import AUTHENTICATE, PRESHARED_KEY, SESSION_SERVICE, Role
from haptera.errors import Code, RemoteProtocolError, failure
from haptera.peer.peer import link_of
from haptera.peer.service import Service

if TYPE_CHECKING:
    from haptera.peer.request import Request

_encoder = msgspec.msgpack.Encoder()
_argument = msgspec.msgpack.Decoder(tuple[()])


class SessionService(Service):
    """Tells the other side about this connection. ``describe [] -> [[service, [method, …]], …]``."""

    name = SESSION_SERVICE

    def methods(self) -> list[str]:
        """Return the names that ``describe`` lists."""
        return ["describe"]

    def handle(self, requests: list[Request]) -> None:
        """Answer at once: nothing here waits."""
        for request in requests:
            if request.method == AUTHENTICATE:
                _refuse_exchange(request)
            elif request.method != "describe":
                request.fail(failure(Code.UNKNOWN_METHOD, {"service": self.name, "method": request.method}))
            elif has_no_argument(request):
                services = sorted(request.peer.services.items())
                request.respond(_encoder.encode([[name, list(service.methods())] for name, service in services]))


def _refuse_exchange(request: Request) -> None:
    """No exchange is served here: the other side has authenticated, or need not, or this side has dialled."""
    link = link_of(request.peer)
    connection = link.connection
    agreement = connection.agreement
    if connection.role is Role.DIALER or agreement is None:
        request.fail(failure(Code.UNKNOWN_METHOD, {"service": request.service, "method": request.method}))
    elif agreement.mechanisms and agreement.mechanisms != (PRESHARED_KEY,):
        fault = RemoteProtocolError(Code.PROTOCOL_VIOLATION, "a connection authenticates once")
        link.above.take(connection.fail_connection(fault))
    else:
        request.fail(failure(Code.UNSUPPORTED_MECHANISM, {"mechanisms": list(agreement.mechanisms)}))


def has_no_argument(request: Request) -> bool:
    """Whether a request's argument is the empty array; if not, the request is answered with 3003."""
    try:
        _argument.decode(request.payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        request.fail(
            failure(Code.INVALID_ARGUMENT, {"reason": "the argument is not an empty array"}, outcome="not_applied")
        )
        return False
    return True
