r"""Patterns as Redis has them: ``*``, ``?``, ``[abc]``, ``[^abc]``, ``[a-z]`` and ``\`` before a literal byte.

They are of bytes, and any bytes are a pattern: a class without its end ends with the pattern, a range that runs
backwards is turned round, and a ``]`` may be the end of a range. The globs of Haptera's own are of characters and
refuse the like, so that they cannot stand for them.

Between two stars stands a run of elements of one byte each, so that the leftmost place where a run fits is as good as
any later one, and a match never goes back over a run (as in `haptera.state.glob`).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from haptera.key_rules import KEY_SIZE_MAX

#: Bytes of a pattern that are looked at: the longest key with each byte escaped, and 20 milliseconds to compile at the
#: very worst, where all of it is classes.
PATTERN_SIZE_MAX: Final = 8 * 1024
#: A pattern costs its session a command of the turn for each 16 bytes (`RespSession.spend`).
PATTERN_COST_SHIFT: Final = 4
#: Units of work (`haptera.state.sliced_work`): a byte of a key is compared with 64 elements in one.
_ELEMENTS_SHIFT: Final = 6

_STAR, _ANY, _OPEN, _CLOSE, _NOT, _ESCAPE, _DASH = b"*?[]^\\-"


class RedisGlob:
    """A compiled pattern, made by `redis_glob`.

    ``prefix`` is the text that every match begins with: `None` where no key matches at all. ``all`` says that each key
    with the prefix matches.
    """

    __slots__ = ("_first", "_last", "_last_width", "_middle", "_runs", "_width", "all", "prefix")

    def __init__(self, runs: list[list[bytes]], literal: bytes) -> None:
        self._runs = runs
        self._first: re.Pattern[bytes] | None = None
        self._last: re.Pattern[bytes] | None = None
        self._last_width = len(runs[-1]) if len(runs) > 1 else 0
        self._middle: list[re.Pattern[bytes]] = []
        self._width = sum(len(run) for run in runs)
        self.prefix: str | None = None if self._width > KEY_SIZE_MAX else _text(literal)
        prefix_alone = len(runs) == 2 and not runs[1] and len(runs[0]) == len(literal)
        self.all: bool = prefix_alone and self.prefix is not None and len(self.prefix.encode()) == len(literal)

    def matches(self, key: bytes) -> bool:
        """Whether the whole key matches. The first call compiles the pattern, because many are made and never asked."""
        first = (self._first or self._compiled()).match(key)
        if first is None:
            return False
        at = first.end()
        if self._last is None:
            return at == len(key)
        end = len(key) - self._last_width
        if end < at or self._last.match(key, end) is None:
            return False
        for run in self._middle:
            found = run.search(key, at, end)
            if found is None:
                return False
            at = found.end()
        return True

    def _compiled(self) -> re.Pattern[bytes]:
        first, *others = (re.compile(b"".join(run), re.DOTALL) for run in self._runs)
        self._runs = []
        self._first = first
        if others:
            *self._middle, self._last = others
        return first

    def work(self, size: int) -> int:
        """Units of work of a match of a key of ``size`` bytes."""
        return 1 + (size * self._width >> _ELEMENTS_SHIFT)


@lru_cache(maxsize=64)
def redis_glob(pattern: bytes) -> RedisGlob:
    """The compiled form of a pattern of at most PATTERN_SIZE_MAX bytes."""
    assert len(pattern) <= PATTERN_SIZE_MAX
    runs: list[list[bytes]] = [[]]
    literal, in_prefix = bytearray(), True
    at, end = 0, len(pattern)
    while at < end:
        byte = pattern[at]
        at += 1
        if byte == _STAR:
            in_prefix = False
            if runs[-1] or len(runs) == 1:
                runs.append([])
            continue
        if byte == _ANY:
            in_prefix = False
            runs[-1].append(b".")
        elif byte == _OPEN:
            in_prefix = False
            element, at = _class(pattern, at)
            runs[-1].append(element)
        else:
            if byte == _ESCAPE and at < end:
                byte = pattern[at]
                at += 1
            runs[-1].append(_escaped(byte))
            if in_prefix:
                literal.append(byte)
    return RedisGlob(runs, bytes(literal))


def _class(pattern: bytes, at: int) -> tuple[bytes, int]:
    """The class whose inside begins at ``at``, as a regular expression, and the place behind it."""
    end = len(pattern)
    negated = pattern[at : at + 1] == b"^"
    at += negated
    members: set[int] = set()
    while at < end:
        byte = pattern[at]
        if byte == _ESCAPE and end - at >= 2:
            at += 1
            members.add(pattern[at])
        elif byte == _CLOSE:
            at += 1
            break
        elif end - at >= 3 and pattern[at + 1] == _DASH:
            low, high = sorted((_signed(byte), _signed(pattern[at + 2])))
            members.update(each & 0xFF for each in range(low, high + 1))
            at += 2
        else:
            members.add(byte)
        at += 1
    return _element(frozenset(members), negated=negated), at


@lru_cache(maxsize=64)
def _element(members: frozenset[int], *, negated: bool) -> bytes:
    """The regular expression of one byte of a class, in ranges: to compile each member costs 50 times as much."""
    if not members:
        return b"." if negated else b"(?!)"
    ordered = sorted(members)
    starts = [byte for byte in ordered if byte - 1 not in members]
    ends = [byte for byte in ordered if byte + 1 not in members]
    ranges = [
        _escaped(low) if low == high else b"%b-%b" % (_escaped(low), _escaped(high))
        for low, high in zip(starts, ends, strict=True)
    ]
    return b"[%b%b]" % (b"^" if negated else b"", b"".join(ranges))


def _signed(byte: int) -> int:
    """A byte as Redis compares the ends of a range: as a signed number, on the machines that it mostly runs on."""
    return byte - 256 if byte > 127 else byte


def _escaped(byte: int) -> bytes:
    return b"\\x%02x" % byte


def _text(literal: bytes) -> str | None:
    """The text that keys with these first bytes begin with; None where no key does."""
    for cut in range(4):  # a character may be begun
        try:
            return literal[: len(literal) - cut].decode()
        except UnicodeDecodeError as error:
            if error.reason != "unexpected end of data" and cut == 0:
                return None
    return None
