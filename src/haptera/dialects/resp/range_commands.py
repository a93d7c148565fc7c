"""The commands of parts of a string: APPEND, GETRANGE, SUBSTR and SETRANGE.

A value is stored whole, and a part of it is read from there. A change of a part is judged by the entry of its key, as
INCREX is (`haptera.dialects.resp.judged_changes`): it writes the whole value, so it is for values that are not large.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from haptera.dialects.resp import result_shapes
from haptera.dialects.resp.argument_values import integer
from haptera.dialects.resp.error_words import VALUE_TOO_LARGE, CommandFault
from haptera.dialects.resp.reply_encoding import ZERO, bulk, error
from haptera.dialects.resp.reply_encoding import integer as integer_reply
from haptera.dialects.resp.steps import Command, Judged, command_row
from haptera.key_rules import VALUE_SIZE_MAX
from haptera.node.commands import operations

if TYPE_CHECKING:
    from haptera.dialects.resp.resp_session import RespSession
    from haptera.dialects.resp.steps import Handler, Outcome, Step

_BAD_OFFSET: Final = error("ERR offset is out of range")


def get_range(session: RespSession, arguments: list[bytes]) -> Step:
    """GETRANGE key start end: both are within, and a negative one counts from the end. SUBSTR is its older name."""
    start, end = integer(arguments[2]), integer(arguments[3])

    def shape(result: Outcome, session: RespSession) -> bytes:
        if type(result) is tuple:
            return bulk(_part(result[0], start, end))
        return bulk(b"") if result_shapes.is_unmet(result) else result_shapes.failed(result)

    return operations.Get(arguments[1].decode()), shape


def _part(value: bytes, start: int, end: int) -> bytes:
    if start < 0 and end < 0 and start > end:
        return b""
    first = max(0, start + len(value)) if start < 0 else start
    last = max(0, end + len(value)) if end < 0 else end
    return value[first : last + 1]


def append(session: RespSession, arguments: list[bytes]) -> Step:
    """APPEND key value: a missing key is made."""
    key, more = arguments[1].decode(), arguments[2]

    def judge(entry: tuple[Any, ...] | None) -> bytes | tuple[operations.Write, bytes]:
        return _written(key, more if entry is None else entry[0] + more)

    return Judged(key, judge)


def set_range(session: RespSession, arguments: list[bytes]) -> Step:
    """SETRANGE key offset value: zeros stand between the end of a short value and the offset."""
    key, offset, part = arguments[1].decode(), integer(arguments[2]), arguments[3]
    if offset < 0:
        raise CommandFault(_BAD_OFFSET)

    def judge(entry: tuple[Any, ...] | None) -> bytes | tuple[operations.Write, bytes]:
        value = b"" if entry is None else entry[0]
        if not part:
            return integer_reply(len(value)) if value else ZERO
        if offset + len(part) > VALUE_SIZE_MAX:
            return VALUE_TOO_LARGE
        before = value[:offset].ljust(offset, b"\0")
        return _written(key, before + part + value[offset + len(part) :])

    return Judged(key, judge)


def _written(key: str, value: bytes) -> bytes | tuple[operations.Write, bytes]:
    """The change that makes a value another one and keeps its time to live, with the reply: the length."""
    if len(value) > VALUE_SIZE_MAX:
        return VALUE_TOO_LARGE
    return operations.Set(key, value, keep_ttl=True), integer_reply(len(value))


def _row(name: str, arity: int, its_flags: str, since: str, summary: str, handler: Handler) -> Command:
    return command_row(name, arity, its_flags, since, summary, handler, "string")


ROWS: Final = (
    _row("append", 3, "write denyoom fast", "2.0.0", "Add bytes at the end of a value.", append),
    _row("getrange", 4, "readonly", "2.4.0", "Read a part of a value.", get_range),
    _row("substr", 4, "readonly", "1.0.0", "Read a part of a value, as GETRANGE does.", get_range),
    _row("setrange", 4, "write denyoom", "2.2.0", "Write over a part of a value.", set_range),
)
