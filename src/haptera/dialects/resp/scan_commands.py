"""The commands that look for keys: SCAN, KEYS and RANDOMKEY. They work in slices, so that no one waits for them."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING, Any, Final

from haptera.dialects.resp.argument_values import integer
from haptera.dialects.resp.bounds import REPLY_SIZE_MAX
from haptera.dialects.resp.error_words import ANSWER_TOO_LARGE, INVALID_CURSOR, SYNTAX, CommandFault, words_of
from haptera.dialects.resp.redis_glob import PATTERN_SIZE_MAX, RedisGlob, redis_glob
from haptera.dialects.resp.reply_encoding import EMPTY_ARRAY, array, bulk, error, text
from haptera.dialects.resp.steps import Command, Slow, command_row
from haptera.errors import Failure
from haptera.node.commands import operations

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from haptera.dialects.resp.resp_session import RespSession
    from haptera.dialects.resp.steps import Handler, Step

#: Keys that one SCAN looks at by default, as in Redis, and at most: as many as take some tenths of a second.
COUNT_DEFAULT: Final = 10
COUNT_MAX: Final = 100_000
#: Bytes of keys from which on one SCAN looks no further.
SCAN_SIZE_MAX: Final = 1024 * 1024
#: Rows of one page, and its bytes: more than a slice of work gives.
_PAGE_ROWS: Final = 4096
_PAGE_SIZE: Final = 8 * 1024 * 1024
#: Units of work after which a filter gives way to others.
_SLICE_WORK: Final = 4096

#: Characters among which each is chosen as often as any other.
_ALPHABET: Final = 128

_CURSOR: Final = re.compile(rb"[0-9]{1,20}")
_CURSOR_MAX: Final = 2**64 - 1
_PATTERN_TOO_LONG: Final = error(f"ERR the pattern is longer than {PATTERN_SIZE_MAX} bytes")


def scan(session: RespSession, arguments: list[bytes]) -> Step:
    """SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]"""
    if _CURSOR.fullmatch(arguments[1]) is None or int(arguments[1]) > _CURSOR_MAX:
        raise CommandFault(INVALID_CURSOR)
    cursor, glob, count, kind = int(arguments[1]), None, COUNT_DEFAULT, b"string"
    if len(arguments) % 2:
        raise CommandFault(SYNTAX)
    for option, given in zip(arguments[2::2], arguments[3::2], strict=True):
        match option.upper():
            case b"COUNT":
                count = integer(given)
                if count < 1:
                    raise CommandFault(SYNTAX)
            case b"MATCH":
                glob = _glob(given)
            case b"TYPE":
                kind = given.lower()
            case _:
                raise CommandFault(SYNTAX)
    return Slow(lambda: _scan(session, cursor, glob, min(count, COUNT_MAX), kind == b"string"))


async def _scan(session: RespSession, cursor: int, glob: RedisGlob | None, count: int, any_matches: bool) -> bytes:
    caller, positions = session.caller, session.state.positions
    user = caller.submitter.user
    after = None
    if cursor:
        after = positions.key(user, cursor)
        if after is None:
            return INVALID_CURSOR
    prefix = "" if glob is None else glob.prefix
    found: list[bytes] = []
    last, done = after, True
    if any_matches and prefix is not None:
        opened = await caller.open_scan(operations.OpenScan(prefix=prefix or None, after=after, keys_only=True))
        if isinstance(opened, Failure):
            return words_of(opened)
        try:
            done, looked, size = False, 0, 0
            while not done and looked < count and size < SCAN_SIZE_MAX:
                page = await caller.page(opened, _PAGE_SIZE, min(_PAGE_ROWS, count - looked))
                if isinstance(page, Failure):
                    return words_of(page)
                looked, done = looked + len(page.rows), page.done
                last = page.rows[-1][0] if page.rows else last
                keys = await _filtered(session, page.rows, glob)
                size += sum(map(len, keys))
                found += keys
        finally:
            opened.close()
    following = 0 if done or last is None else positions.cursor(user, last)
    return array([text(str(following)), array(found)])


def keys(session: RespSession, arguments: list[bytes]) -> Step:
    """KEYS pattern"""
    glob = _glob(arguments[1])
    return Slow(lambda: _keys(session, glob))


async def _keys(session: RespSession, glob: RedisGlob) -> bytes:
    if glob.prefix is None:
        return EMPTY_ARRAY
    opened = await session.caller.open_scan(operations.OpenScan(prefix=glob.prefix or None, keys_only=True))
    if isinstance(opened, Failure):
        return words_of(opened)
    found: list[bytes] = []
    count, size, done = 0, 0, False
    try:
        while not done:
            page = await session.caller.page(opened, _PAGE_SIZE, _PAGE_ROWS)
            if isinstance(page, Failure):
                return words_of(page)
            done, pieces = page.done, await _filtered(session, page.rows, glob)
            found.append(b"".join(pieces))
            count += len(pieces)
            size += len(found[-1])
            if size > REPLY_SIZE_MAX or not session.hold(size):
                return ANSWER_TOO_LARGE
    finally:
        opened.close()
    return b"*%d\r\n%b" % (count, b"".join(found))


async def _filtered(session: RespSession, rows: Sequence[tuple[Any, ...]], glob: RedisGlob | None) -> list[bytes]:
    """The keys of some rows that match, as replies."""
    if glob is None or glob.all:
        return [text(row[0]) for row in rows]
    caller = session.caller
    return await caller.commands.turns.run(caller, _filter_steps(rows, glob))  # type: ignore[no-any-return]


def _filter_steps(rows: Sequence[tuple[Any, ...]], glob: RedisGlob) -> Generator[int, None, list[bytes]]:
    found, work = [], 0
    for row in rows:
        key = row[0].encode()
        work += glob.work(len(key))
        if work > _SLICE_WORK:
            yield work
            work = 0
        if glob.matches(key):
            found.append(bulk(key))
    yield work
    return found


def _glob(pattern: bytes) -> RedisGlob:
    if len(pattern) > PATTERN_SIZE_MAX:
        raise CommandFault(_PATTERN_TOO_LONG)
    return redis_glob(pattern)


def random_key(session: RespSession, arguments: list[bytes]) -> Step:
    """RANDOMKEY"""
    return Slow(lambda: _random_key(session))


async def _random_key(session: RespSession) -> bytes:
    """Walk down the keys as a tree of their characters: of the characters that may follow, one is chosen at random.

    So each key may be chosen. Keys with few neighbours are chosen more often, because no one counts the others.
    """
    low = await _first(session, "", reverse=False)
    if isinstance(low, bytes):
        return low
    prefix = ""
    while True:
        first = await _first(session, prefix, reverse=False)
        last = await _first(session, prefix, reverse=True)
        if isinstance(first, bytes) or isinstance(last, bytes):
            return text(low)  # they were removed meanwhile
        low = first
        if first == last:
            return text(first)
        prefix = _common(first, last)
        if first == prefix:
            if random.random() < 0.5:  # no secret
                return text(first)
            lowest = 0
        else:
            lowest = ord(first[len(prefix)])
        chosen = _between(lowest, ord(last[len(prefix)]))
        if 0xD800 <= chosen <= 0xDFFF:
            chosen = 0xD7FF
        behind = await _first(session, prefix, reverse=False, start=prefix + chr(chosen))
        prefix = (last if isinstance(behind, bytes) else behind)[: len(prefix) + 1]


def _between(low: int, high: int) -> int:
    """Any character from ``low`` to ``high``; where they are of different scripts, more often one near the ends."""
    span = high - low + 1
    if span <= _ALPHABET:
        return random.randint(low, high)
    distance = int(span ** random.random()) - 1
    return low + distance if random.random() < 0.5 else high - distance


def _common(first: str, last: str) -> str:
    """The text that both begin with."""
    for at, (one, other) in enumerate(zip(first, last, strict=False)):
        if one != other:
            return first[:at]
    return min(first, last, key=len)


async def _first(session: RespSession, prefix: str, *, reverse: bool, start: str | None = None) -> str | bytes:
    """The first or the last key with a prefix; the reply where there is none."""
    op = operations.OpenScan(prefix=prefix or None, start=start, limit=1, reverse=reverse, keys_only=True)
    opened = await session.caller.open_scan(op)
    if isinstance(opened, Failure):
        return words_of(opened)
    try:
        while True:
            page = await session.caller.page(opened, _PAGE_SIZE, 1)
            if isinstance(page, Failure):
                return words_of(page)
            if page.rows:
                return str(page.rows[0][0])
            if page.done:
                return session.null
    finally:
        opened.close()


def _row(name: str, arity: int, since: str, summary: str, handler: Handler) -> Command:
    return command_row(name, arity, "readonly", since, summary, handler, "generic", (0, 0, 0))


ROWS: Final = (
    _row("scan", -2, "2.8.0", "Look at some keys, and tell where to go on.", scan),
    _row("keys", 2, "1.0.0", "Find all keys that match a pattern.", keys),
    _row("randomkey", 1, "1.0.0", "Find any key.", random_key),
)
