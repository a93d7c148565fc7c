r"""Requests of RESP: from bytes to the arguments of commands, incrementally.

A request is an array of bulk strings, ``*2\r\n$3\r\nGET\r\n$1\r\nk\r\n``, or an inline command: a line of words, some
of them in quotes. A read that holds whole commands of short arguments is split at its line ends at once, which
costs a few instructions for each command; all else is parsed argument by argument. Both find the same commands.

Each length is checked before anything is kept for it, and the words of the errors are those of Redis.
"""

from __future__ import annotations

from typing import Final

from haptera.dialects.resp.bounds import (
    ARGUMENT_OVERHEAD,
    ARGUMENTS_MAX,
    BULK_SIZE_MAX,
    LINE_SIZE_MAX,
    REQUEST_SIZE_MAX,
    SPLIT_SIZE_MAX,
    STRANGER_ARGUMENTS_MAX,
    STRANGER_BULK_SIZE_MAX,
)
from haptera.dialects.resp.inline_words import UnbalancedQuotes, split_words
from haptera.dialects.resp.reply_encoding import BULK_HEADS

#: The heads of arrays that are found by splitting, and the number of their elements.
_COUNTS: Final = {b"*%d" % count: count for count in range(1, 65)}
#: The heads of bulk strings that are found by splitting, by their lengths.
_HEADS: Final = BULK_HEADS
#: Digits of a length that is worth a conversion: more are out of any bound.
_DIGITS_MAX: Final = 20

_ARRAY: Final = ord("*")
_BULK: Final = b"$"


class ProtocolFault(Exception):
    """The bytes are no request. The message is that of Redis; the connection ends with it."""


class RequestParser:
    """The bytes of one connection that are not yet commands.

    ``limited`` says that its other side has not logged in: then the bounds are narrow.
    """

    __slots__ = (
        "_arguments",
        "_at",
        "_buffer",
        "_left",
        "_request_size",
        "_run_end",
        "_runs_from",
        "_searched",
        "_size",
        "_split",
        "limited",
    )

    def __init__(self) -> None:
        self.limited: bool = False
        #: The pieces that a read was split into, and the place of the next command there.
        self._split: list[bytes] | None = None
        #: The end of the run that was found last, and the place before which none is looked for.
        self._run_end = 0
        self._runs_from = 0
        #: The bytes of all else, and the place of the first that is not parsed.
        self._buffer = bytearray()
        self._at = 0
        #: Bytes behind the place in which there is no end of a line: they are not searched again.
        self._searched = 0
        #: The unfinished command: its arguments so far, how many are to come, and the length of the next, -1 before
        #: its head.
        self._arguments: list[bytes] = []
        self._left = 0
        self._size = -1
        self._request_size = 0

    @property
    def unparsed(self) -> int:
        """Bytes that are held and are no whole argument yet."""
        if self._split is not None:
            return sum(map(len, self._split[self._at :]))
        return len(self._buffer) - self._at

    @property
    def idle(self) -> bool:
        """Whether nothing is held."""
        return self._split is None and not self._left and self._at == len(self._buffer)

    @property
    def held(self) -> int:
        """Bytes that are held in all, with the arguments of an unfinished command."""
        return self.unparsed + self._request_size

    @property
    def missing(self) -> int | None:
        """Bytes that are to come before the unfinished command can be whole, as far as is known; None without one."""
        if self._left:
            return max(1, self._size + 2 - self.unparsed) if self._size >= 0 else self._left
        return 1 if self.unparsed else None

    def feed(self, data: bytes) -> None:
        """Take bytes that have been read."""
        if self._split is not None:
            self._give_up_splitting()
        if not self._left and self._at == len(self._buffer) and not self.limited and len(data) <= SPLIT_SIZE_MAX:
            if self._buffer:
                self._buffer = bytearray()
            self._split, self._at, self._runs_from = data.split(b"\r\n"), 0, 0
            return
        if self._at and self._at >= len(self._buffer) >> 1:  # each byte is moved once, on average
            del self._buffer[: self._at]
            self._at = 0
        self._buffer += data

    def feed_or_take(self, data: bytes) -> list[bytes] | None:
        """As `feed`, for an idle parser. But where the bytes are one whole command of short arguments, these are
        returned, and nothing is held.
        """
        if len(data) <= SPLIT_SIZE_MAX and not self._buffer:
            split = data.split(b"\r\n")
            count = _COUNTS.get(split[0])
            if count is not None and len(split) == 2 * count + 2 and not split[-1]:
                arguments = split[2::2]
                try:
                    if [_HEADS[len(each)] for each in arguments] == split[1:-1:2]:
                        return arguments
                except IndexError:
                    pass  # an argument is longer than the heads that are known
        self.feed(data)
        return None

    def next(self) -> list[bytes] | None:
        """Return the arguments of the next command, or None where none is whole. Raises ProtocolFault.

        No arguments stand for an empty line or an empty array, which Redis passes over. The caller counts it as a
        command, because one read may hold a quarter of a million.
        """
        split = self._split
        if split is not None:
            at = self._at
            count = _COUNTS.get(split[at])
            if count is not None and (end := at + 1 + 2 * count) < len(split):
                arguments = split[at + 2 : end : 2]
                try:
                    if [_HEADS[len(each)] for each in arguments] == split[at + 1 : end : 2]:
                        if end + 1 == len(split) and not split[end]:  # all of it is parsed
                            self._split, self._at = None, 0
                        else:
                            self._at = end
                        return arguments
                except IndexError:
                    pass  # an argument is longer than the heads that are known
            elif at + 1 == len(split) and not split[at]:  # there was nothing
                self._split, self._at = None, 0
                return None
            self._give_up_splitting()
        return self._parse()

    def run(self, counts: dict[bytes, int], limit: int) -> list[list[bytes]] | None:
        """Return the next commands, ``limit`` at most, as far as they have one name: the columns of their arguments.

        ``counts`` has the commands that may be in a run, by their names, and the numbers of their arguments. None where
        the next command is for `next`. The parser stays where it is, until `pass_run` or `refuse_run`.
        """
        split, at = self._split, self._at
        if split is None or at < self._runs_from or at + 2 >= len(split):
            return None
        head, name = split[at], split[at + 2]
        count = counts.get(name)
        if count is None or _COUNTS.get(head) != count:
            return None
        step = 1 + 2 * count
        number = min((len(split) - 1 - at) // step, limit)
        if number < 2:
            return None
        end = at + number * step
        if not split[at:end:step].count(head) == split[at + 2 : end : step].count(name) == number:
            number = 1
            while split[at + number * step] == head and split[at + number * step + 2] == name:
                number += 1
            if number == 1:
                return None
            end = at + number * step
        columns = [split[place:end:step] for place in range(at + 2, at + step, 2)]
        self._run_end = end
        try:
            for place, column in enumerate(columns):
                if list(map(_HEADS.__getitem__, map(len, column))) != split[at + 1 + 2 * place : end : step]:
                    break
            else:
                return columns
        except IndexError:
            pass  # an argument is longer than the heads that are known
        self.refuse_run()
        return None

    def pass_run(self) -> None:
        """Go on behind the run that was found."""
        split, end = self._split, self._run_end
        assert split is not None
        if end + 1 == len(split) and not split[end]:  # all of it is parsed
            self._split, self._at = None, 0
        else:
            self._at = end

    def refuse_run(self) -> None:
        """Leave the commands of the run that was found to `next`, one after the other."""
        self._runs_from = self._run_end

    def _give_up_splitting(self) -> None:
        """Parse the rest argument by argument."""
        assert self._split is not None
        self._buffer = bytearray(b"\r\n".join(self._split[self._at :]))
        self._split, self._at = None, 0

    def _parse(self) -> list[bytes] | None:
        buffer = self._buffer
        if not self._left:
            if self._at == len(buffer):
                if buffer:  # it may have held a large value
                    self._buffer, self._at = bytearray(), 0
                return None
            if buffer[self._at] != _ARRAY:
                return self._inline()
            head = self._line("too big mbulk count string")
            if head is None:
                return None
            count = _number(head)
            if count is None or count > ARGUMENTS_MAX:
                raise ProtocolFault("invalid multibulk length")
            if self.limited and count > STRANGER_ARGUMENTS_MAX:
                raise ProtocolFault("unauthenticated multibulk length")
            if count <= 0:
                return []
            self._left = count
        while self._left:
            if self._size < 0 and not self._bulk_head():
                return None
            at, end = self._at, self._at + self._size
            if len(buffer) < end + 2:
                return None
            self._arguments.append(bytes(memoryview(buffer)[at:end]))
            self._at = end + 2
            self._size = -1
            self._left -= 1
        arguments, self._arguments, self._request_size = self._arguments, [], 0
        return arguments

    def _bulk_head(self) -> bool:
        """Read the length of the next argument; False where its line is not whole."""
        head = self._line("too big bulk count string", _BULK)
        if head is None:
            return False
        size = _number(head)
        if size is None or not 0 <= size <= BULK_SIZE_MAX:
            raise ProtocolFault("invalid bulk length")
        if self.limited and size > STRANGER_BULK_SIZE_MAX:
            raise ProtocolFault("unauthenticated bulk length")
        self._request_size += size + ARGUMENT_OVERHEAD
        if self._request_size > REQUEST_SIZE_MAX:
            raise ProtocolFault("too big request")
        self._size = size
        return True

    def _line(self, too_long: str, mark: bytes = b"") -> bytes | None:
        """The text behind the first byte of the next line, which is ``mark`` where one is given; None if the line is
        not whole.
        """
        buffer, at = self._buffer, self._at
        end = buffer.find(b"\r", at + self._searched)
        if end < 0 or end + 1 == len(buffer):
            self._searched = max(0, len(buffer) - at - 1)
            if end < 0 and len(buffer) - at > LINE_SIZE_MAX:
                raise ProtocolFault(too_long)
            return None
        self._searched = 0
        line = bytes(buffer[at : min(end, at + _DIGITS_MAX + 2)])
        if mark and line[:1] != mark:
            raise ProtocolFault(f"expected '$', got '{chr(line[0]) if line else chr(13)}'")
        self._at = end + 2
        return line[1:]

    def _inline(self) -> list[bytes] | None:
        """The words of the next line; None where it is not whole."""
        buffer, at = self._buffer, self._at
        end = buffer.find(b"\n", at + self._searched)
        if end < 0:
            self._searched = len(buffer) - at
            if self._searched > LINE_SIZE_MAX:
                raise ProtocolFault("too big inline request")
            return None
        self._searched = 0
        if end - at > LINE_SIZE_MAX:
            raise ProtocolFault("too big inline request")
        self._at = end + 1
        try:
            return split_words(bytes(buffer[at : end - 1 if end > at and buffer[end - 1] == 13 else end]))
        except UnbalancedQuotes:
            raise ProtocolFault("unbalanced quotes in request") from None


def _number(text: bytes) -> int | None:
    """The number that a head of RESP says: no sign but a minus, no leading zero."""
    if len(text) > _DIGITS_MAX:
        return None
    digits = text[1:] if text[:1] == b"-" else text
    if not digits.isdigit() or (digits[:1] == b"0" and len(text) > 1):
        return None
    return int(text)
