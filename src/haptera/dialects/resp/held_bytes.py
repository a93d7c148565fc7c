"""The bytes that a session holds and the command that it awaits, as its connection is told of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haptera.dialects.resp.bounds import UNPARSED_SIZE_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable

    from haptera.dialects.resp.reply_group import ReplyGroup
    from haptera.dialects.resp.request_parser import RequestParser
    from haptera.node.frontend import FrontendConnection


class HeldBytes:
    """Of one session: the bytes in ``parser``, the values in results, those of a reply that is being made, and those
    that are ``kept`` by parts of the dialect.

    ``is_told`` says whether the connection has been told of anything that may be over by now.
    """

    __slots__ = ("_charged", "_connection", "_expecting", "_parser", "_reply", "kept")

    def __init__(self, connection: FrontendConnection, parser: RequestParser) -> None:
        self._connection = connection
        self._parser = parser
        self._expecting = False
        self._charged = 0
        self._reply = 0
        self.kept: int = 0

    @property
    def is_told(self) -> bool:
        """Whether the connection knows of bytes, or of an unfinished command."""
        return self._expecting or self._charged > 0 or self.kept > 0

    def hold_reply(self, size: int) -> bool:
        """Hold so many bytes of a reply that is being made; False where that is more than there may be."""
        self._reply = size
        self._charged = self._parser.held + self.kept + size
        return self._connection.charge(self._charged)

    def tell(self, groups: Iterable[ReplyGroup], *, blocked: bool, parsed: bool) -> bool:
        """Tell the connection all that is held, and read on where there is room for more.

        ``blocked`` says that commands wait for others, and ``parsed`` that some were parsed since the last time.
        Returns False where an unfinished command could not become whole, because the memory is used up.
        """
        connection, parser = self._connection, self._parser
        if self._expecting and (blocked or parsed or parser.idle):
            connection.expect(None)
            self._expecting = False
        if not blocked and not parser.idle and not self._expecting:
            connection.expect(parser.missing)
            self._expecting = True
        self._charged = parser.held + self.kept + self._reply + sum(group.held for group in groups)
        affordable = connection.charge(self._charged)
        if blocked and (not affordable or parser.unparsed > UNPARSED_SIZE_MAX):
            connection.pause_reading()
            return True
        connection.resume_reading()
        return affordable or blocked
