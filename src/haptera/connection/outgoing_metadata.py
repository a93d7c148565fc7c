"""The metadata of messages that leave: where a request goes, and the entries behind that (spec/protocol.md, 2.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from haptera.connection.decode_cache import remember_route
from haptera.errors import Code, LocalProtocolError
from haptera.wire import METADATA_SIZE_MAX, encode_route

if TYPE_CHECKING:
    from haptera.connection.grease import Grease
    from haptera.connection.outbox import Outbox

#: The most that a frame's metadata may take, with room left for grease and for the request id that an answer echoes.
ENTRIES_SIZE_MAX: Final = METADATA_SIZE_MAX - 32


class Heads:
    """Encodes routes, keeps metadata within its limit, and adds grease."""

    __slots__ = (
        "_entropy",
        "_outbox",
        "grease",
        "routes",
    )

    def __init__(self, outbox: Outbox, grease: Grease | None, entropy: Callable[[int], bytes]) -> None:
        #: Greases messages, if grease is sent.
        self.grease: Grease | None = grease
        #: Routes that were encoded before, by service and method.
        self.routes: dict[tuple[str, str], bytes] = {}
        self._outbox = outbox
        self._entropy = entropy

    def route(self, service: str, method: str) -> bytes:
        """Encode where a request goes. Raises ``LocalProtocolError`` 1002 for a name that no frame can carry."""
        try:
            route = encode_route(service, method)
        except ValueError as error:
            raise LocalProtocolError(Code.MALFORMED_FRAME, str(error)) from error
        remember_route(self.routes, (service, method), route, len(route))
        return route

    def apply_grease(self, entries: bytes, flags: int) -> tuple[bytes, int]:
        """Return a message's entries and flags with one of them greased, or send a frame of a reserved type."""
        assert self.grease is not None
        kind = self._entropy(1)[0] % 3
        if kind == 0 and self._outbox.opened:
            self._outbox.add_control(self.grease.frame())
        elif kind == 1:
            flags |= self.grease.flag()
        else:
            entries = self.grease.entry() + entries
        return entries, flags


def check_size(size: int) -> None:
    """Raise ``LocalProtocolError`` 1004 for metadata that no frame can carry."""
    if size > ENTRIES_SIZE_MAX:
        details = {"length": size, "limit": ENTRIES_SIZE_MAX}
        raise LocalProtocolError(Code.FRAME_TOO_LARGE, "a frame's metadata is too long", details)


def refuse_size(size: int, limit: int) -> None:
    """Raise ``LocalProtocolError`` 3004: a message is larger than the peer takes."""
    raise LocalProtocolError(
        Code.MESSAGE_TOO_LARGE, "the message is larger than the peer takes", {"length": size, "limit": limit}
    )
