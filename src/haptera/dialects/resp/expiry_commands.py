"""The commands of times to live."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from haptera.dialects.resp import result_shapes
from haptera.dialects.resp.argument_values import ending, integer
from haptera.dialects.resp.error_words import CommandFault
from haptera.dialects.resp.reply_encoding import ONE, ZERO, error
from haptera.dialects.resp.reply_encoding import integer as integer_reply
from haptera.dialects.resp.steps import Command, Judged, command_row
from haptera.node.commands import operations

if TYPE_CHECKING:
    from haptera.dialects.resp.resp_session import RespSession
    from haptera.dialects.resp.steps import Handler, Outcome, Shape, Step

_NO_KEY: Final = integer_reply(-2)
_NO_END: Final = integer_reply(-1)
_NX_AND_OTHERS: Final = error("ERR NX and XX, GT or LT options at the same time are not compatible")
_GT_AND_LT: Final = error("ERR GT and LT options at the same time are not compatible")
_CONDITIONS: Final = frozenset({"NX", "XX", "GT", "LT"})


def expire_row(name: str, unit_ms: int, absolute: bool, since: str) -> Command:
    """The row of EXPIRE, PEXPIRE, EXPIREAT or PEXPIREAT: key, number [NX | XX | GT | LT]"""

    def handler(session: RespSession, arguments: list[bytes]) -> Step:
        conditions = _conditions(arguments[3:]) if len(arguments) > 3 else frozenset()
        key, number = arguments[1].decode(), integer(arguments[2])
        ttl_ms = ending(name, number, unit_ms, absolute, session.now_ms)
        if not conditions:
            return _change(key, ttl_ms), result_shapes.one_if_changed

        def judge(entry: tuple[Any, ...] | None) -> Any:
            # A time to live counts from the moment of this change, which is behind those that the entry comes from.
            now_ms = session.now_ms()
            when_ms = number * unit_ms if absolute else now_ms + ttl_ms
            if entry is None or not _holds(conditions, entry[2], when_ms):
                return ZERO
            return _change(key, when_ms - now_ms), ONE

        return Judged(key, judge)

    return _row(name, -3, "write fast", since, "Give a key a time to live.", handler)


def _conditions(options: list[bytes]) -> frozenset[str]:
    found = frozenset(option.decode("latin-1").upper() for option in options)
    for option in options:
        if option.decode("latin-1").upper() not in _CONDITIONS:
            raise CommandFault(error(f"ERR Unsupported option {option.decode(errors='surrogateescape')}"))
    if "NX" in found and len(found) > 1:
        raise CommandFault(_NX_AND_OTHERS)
    if found >= {"GT", "LT"}:
        raise CommandFault(_GT_AND_LT)
    return found


def _holds(conditions: frozenset[str], expires_at_ms: int | None, when_ms: int) -> bool:
    """Whether a key that ends at a time may end at another one; a key without an end ends later than any other."""
    if "NX" in conditions and expires_at_ms is not None:
        return False
    if "XX" in conditions and expires_at_ms is None:
        return False
    if "GT" in conditions:
        return expires_at_ms is not None and when_ms > expires_at_ms
    if "LT" in conditions:
        return expires_at_ms is None or when_ms < expires_at_ms
    return True


def _change(key: str, ttl_ms: int) -> operations.Write:
    """The change that gives a key a time to live; one that is over removes the key at once."""
    return operations.Expire(key, ttl_ms) if ttl_ms > 0 else operations.Delete(key)


def persist(session: RespSession, arguments: list[bytes]) -> Step:
    """PERSIST key: a key without an end stays as it is."""
    key = arguments[1].decode()

    def judge(entry: tuple[Any, ...] | None) -> Any:
        return ZERO if entry is None or entry[2] is None else (operations.Expire(key, None), ONE)

    return Judged(key, judge)


def _left(unit_ms: int) -> Handler:
    """The handler of TTL or PTTL: key"""
    shape = _time_shape(0, unit_ms)
    return lambda session, arguments: (operations.TimeToLive(arguments[1].decode()), shape)


def _end(unit_ms: int) -> Handler:
    """The handler of EXPIRETIME or PEXPIRETIME: key"""
    shape = _time_shape(2, unit_ms)
    return lambda session, arguments: (operations.Get(arguments[1].decode()), shape)


def _time_shape(field: int, unit_ms: int) -> Shape:
    """The shape of a result that has a time, or none, in a field."""

    def shape(result: Outcome, session: RespSession) -> bytes:
        if type(result) is not tuple:
            return _NO_KEY if result_shapes.is_unmet(result) else result_shapes.failed(result)
        milliseconds = result[field]
        return _NO_END if milliseconds is None else integer_reply(_in_units(milliseconds, unit_ms))

    return shape


def _in_units(milliseconds: int, unit_ms: int) -> int:
    return (milliseconds + unit_ms // 2) // unit_ms


def _row(name: str, arity: int, its_flags: str, since: str, summary: str, handler: Handler) -> Command:
    return command_row(name, arity, its_flags, since, summary, handler, "generic")


ROWS: Final = (
    expire_row("expire", 1000, False, "1.0.0"),
    expire_row("pexpire", 1, False, "2.6.0"),
    expire_row("expireat", 1000, True, "1.2.0"),
    expire_row("pexpireat", 1, True, "2.6.0"),
    _row("persist", 2, "write fast", "2.2.0", "Let a key have no end any more.", persist),
    _row("ttl", 2, "readonly fast", "1.0.0", "Tell the seconds that a key has to live.", _left(1000)),
    _row("pttl", 2, "readonly fast", "2.6.0", "Tell the milliseconds that a key has to live.", _left(1)),
    _row("expiretime", 2, "readonly fast", "7.0.0", "Tell when a key ends, in Unix seconds.", _end(1000)),
    _row("pexpiretime", 2, "readonly fast", "7.0.0", "Tell when a key ends, in Unix milliseconds.", _end(1)),
)
