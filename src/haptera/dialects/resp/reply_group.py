"""Commands of one connection that were submitted together, and the making of their replies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from haptera.dialects.resp.reply_encoding import OK
from haptera.dialects.resp.result_shapes import done

if TYPE_CHECKING:
    from haptera.dialects.resp.resp_session import RespSession
    from haptera.node.commands import Commands, Envelope, Submission

#: Bytes of replies that are joined before they are handed to the connection, which then says whether it is full.
_JOINED_SIZE: Final = 64 * 1024


class ReplyGroup:
    """Some commands in a row: the operations of them all, and a part for the reply of each.

    A part is the reply itself, the shape of one result, or a number of results with the shape of them together.
    """

    __slots__ = ("_next_part", "_next_result", "_session", "envelopes", "parts", "results", "submission", "writes")

    def __init__(self, session: RespSession) -> None:
        self._session = session
        self.parts: list[Any] = []
        self.envelopes: list[Envelope] = []
        self.writes: bool = False
        self.results: list[Any] | None = None
        self.submission: Submission | None = None
        self._next_part = 0
        self._next_result = 0

    def done(self, results: list[Any]) -> None:
        """Take the results of all operations."""
        self._session.answered(self, results)

    def write(self, session: RespSession) -> bool:
        """Write replies until the connection is full; whether all are written."""
        results, parts, connection = self.results, self.parts, session.connection
        assert results is not None
        if len(set(map(type, results))) == 1 and parts.count(done) == len(parts) and type(results[0]) is tuple:
            connection.write(OK * len(parts))  # as in most groups of changes
            return True
        at, made, size = self._next_result, [], 0
        number = self._next_part
        for number in range(self._next_part, len(parts)):
            part = parts[number]
            kind = type(part)
            if kind is bytes:
                reply = part
            elif kind is tuple:
                count, shape = part
                reply = shape(results[at : at + count], session)
                at += count
            else:
                reply = part(results[at], session)
                at += 1
            made.append(reply)
            size += len(reply)
            if size > _JOINED_SIZE:
                connection.write(b"".join(made))
                made, size = [], 0
                if connection.full:
                    self._next_part, self._next_result = number + 1, at
                    del results[:at]  # so that no value is held whose reply is made
                    self._next_result = 0
                    return number + 1 == len(parts)
        if made:
            connection.write(made[0] if len(made) == 1 else b"".join(made))
        return True

    @property
    def held(self) -> int:
        """Bytes of the values in results whose replies are still to be made."""
        found = [result for result in self.results or () if type(result) is tuple]
        return sum(len(field) for result in found for field in result if type(field) is bytes)

    def take_back(self, commands: Commands) -> None:
        """Drop the writes that are not with the disk yet: no one waits for them."""
        if self.submission is not None and self.results is None:
            for position in range(len(self.envelopes)):
                commands.drop(self.submission, position)
