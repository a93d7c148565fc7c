"""The commands of strings: values that are read and written whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from haptera.dialects.resp import large_lists, result_shapes
from haptera.dialects.resp.argument_values import (
    OPTIONS_OF_GETEX,
    OPTIONS_OF_SET,
    SetOptions,
    expiry,
    integer,
    set_options,
)
from haptera.dialects.resp.compare_and_set import set_if_value, value_condition
from haptera.dialects.resp.error_words import CommandFault, error_of_many, invalid_expiry, wrong_arity
from haptera.dialects.resp.reply_encoding import OK, ZERO, bulk
from haptera.dialects.resp.steps import Command, Judged, ReadRun, WriteRun, command_row
from haptera.key_rules import TTL_MAX_MS
from haptera.node.commands import operations

if TYPE_CHECKING:
    from haptera.dialects.resp.resp_session import RespSession
    from haptera.dialects.resp.steps import Handler, Outcome, RunHandler, Shape, Step

#: Keys of one MSETNX: as many as a transact compares.
CONDITIONAL_KEYS_MAX: Final = 128


def get(session: RespSession, arguments: list[bytes]) -> Step:
    """GET key"""
    return operations.Get(arguments[1].decode()), result_shapes.value


def get_run(columns: list[list[bytes]]) -> ReadRun:
    """GET key, several times"""
    return ReadRun(list(map(bytes.decode, columns[1])), result_shapes.value, result_shapes.values_in_a_row)


def set_run(columns: list[list[bytes]]) -> WriteRun:
    """SET key value, several times"""
    _, keys, values = columns
    return WriteRun(list(map(operations.Set, map(bytes.decode, keys), values)), result_shapes.done)


def set_value(session: RespSession, arguments: list[bytes]) -> Step:
    """SET key value [NX | XX | IFEQ value | IFNE value] [GET] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]"""
    if len(arguments) == 3:
        return operations.Set(arguments[1].decode(), arguments[2]), result_shapes.done
    condition = value_condition(arguments[3:])
    options = set_options(arguments[3:] if condition is None else condition[2], OPTIONS_OF_SET)
    ttl_ms = None
    if options.expiry is not None:
        ttl_ms = expiry("set", *options.expiry, session.now_ms)
    if condition is not None:
        return set_if_value(arguments[1].decode(), arguments[2], *condition[:2], options, ttl_ms)
    return set_as_asked(arguments[1].decode(), arguments[2], options, ttl_ms)


def set_as_asked(key: str, value: bytes, options: SetOptions, ttl_ms: int | None) -> Step:
    """A set with its options, and a time to live; one that is over removes the key at once."""
    condition, get_previous = options.condition, options.get
    if ttl_ms is not None and ttl_ms <= 0:
        return _set_expired(key, condition, get_previous)
    op = operations.Set(
        key, value, condition=condition, return_previous=get_previous, ttl_ms=ttl_ms, keep_ttl=options.keep_ttl
    )
    if not get_previous:
        return op, result_shapes.done if condition is None else result_shapes.done_if_met
    if condition != "absent":
        return op, result_shapes.previous
    # The failure of a set does not tell the value that was in its way.
    absent = operations.Compare(key, "exists", "=", False)
    return operations.Transact([absent], [op], [operations.Get(key)]), _value_in_the_way


def _set_expired(key: str, condition: str | None, get_previous: bool) -> Step:
    """A set whose time to live is over before it begins: all that is left of it is that the key is gone."""
    if condition == "absent":
        if get_previous:
            return operations.Get(key), result_shapes.value
        return (
            operations.Exists(key),
            lambda result, session: (
                result_shapes.failed(result) if type(result) is not tuple else session.null if result[0] else OK
            ),
        )
    op = operations.Delete(key, return_previous=get_previous)
    if get_previous:
        return op, result_shapes.previous
    if condition is None:
        return op, result_shapes.done
    return (
        op,
        lambda result, session: (
            result_shapes.failed(result) if type(result) is not tuple else OK if result[0] else session.null
        ),
    )


def _value_in_the_way(result: Outcome, session: RespSession) -> bytes:
    if type(result) is not tuple:
        return result_shapes.failed(result)
    succeeded, _, results = result
    return session.null if succeeded or results[0] is None else result_shapes.value(results[0], session)


def set_with_ttl(name: str, unit_ms: int) -> Command:
    """The row of SETEX or PSETEX, whose time to live comes before the value."""

    def handler(session: RespSession, arguments: list[bytes]) -> Step:
        number = integer(arguments[2])
        if number <= 0 or number * unit_ms > TTL_MAX_MS:
            raise CommandFault(invalid_expiry(name))
        return operations.Set(arguments[1].decode(), arguments[3], ttl_ms=number * unit_ms), result_shapes.done

    since = "2.0.0" if name == "setex" else "2.6.0"
    return _row(name, 4, "write denyoom", since, f"Set a key to a value that expires ({name}).", handler)


def set_if_absent(session: RespSession, arguments: list[bytes]) -> Step:
    """SETNX key value"""
    op = operations.Set(arguments[1].decode(), arguments[2], condition="absent")
    return op, result_shapes.one_if_met


def get_and_set(session: RespSession, arguments: list[bytes]) -> Step:
    """GETSET key value"""
    return operations.Set(arguments[1].decode(), arguments[2], return_previous=True), result_shapes.previous


def get_and_delete(session: RespSession, arguments: list[bytes]) -> Step:
    """GETDEL key"""
    return operations.GetAndDelete(arguments[1].decode()), result_shapes.value


def get_and_expire(session: RespSession, arguments: list[bytes]) -> Step:
    """GETEX key [EX seconds | PX milliseconds | EXAT s | PXAT ms | PERSIST]"""
    options, key = set_options(arguments[2:], OPTIONS_OF_GETEX), arguments[1].decode()
    if options.persist:
        return _persisted(session, key)
    if options.expiry is None:
        return operations.Get(key), result_shapes.value
    try:
        ttl_ms = expiry("getex", *options.expiry, session.now_ms)
    except CommandFault as fault:
        return operations.Get(key), _fault_if_present(fault)
    if ttl_ms <= 0:
        return operations.GetAndDelete(key), result_shapes.value
    return operations.GetAndExpire(key, ttl_ms), result_shapes.value


def _persisted(session: RespSession, key: str) -> Step:
    """A read that takes the end away. A key without an end stays as it is, so that transactions that watch it go on."""

    def judge(entry: tuple[Any, ...] | None) -> bytes | tuple[operations.Write, bytes]:
        if entry is None:
            return session.null
        return bulk(entry[0]) if entry[2] is None else (operations.Expire(key, None), bulk(entry[0]))

    return Judged(key, judge)


def _fault_if_present(fault: CommandFault) -> Shape:
    """The error for a time that no key can have, where the key is there: as in Redis, a missing key is judged first."""

    def shape(result: Outcome, session: RespSession) -> bytes:
        return fault.reply if type(result) is tuple else result_shapes.missing(result, session)

    return shape


def get_many(session: RespSession, arguments: list[bytes]) -> Step:
    """MGET key [key ...]"""
    return large_lists.read(session, [key.decode() for key in arguments[1:]], result_shapes.values)


def set_many(session: RespSession, arguments: list[bytes]) -> Step:
    """MSET key value [key value ...]"""
    return large_lists.change(session, operations.SetMany(_pairs("mset", arguments)), result_shapes.done)


def set_many_if_absent(session: RespSession, arguments: list[bytes]) -> Step:
    """MSETNX key value [key value ...]"""
    items = _pairs("msetnx", arguments)
    if len(items) > CONDITIONAL_KEYS_MAX:
        raise CommandFault(error_of_many("msetnx", CONDITIONAL_KEYS_MAX))
    compares = [operations.Compare(key, "exists", "=", False) for key, _ in items]
    return operations.Transact(compares, [operations.Set(*item) for item in items]), result_shapes.one_if_true


def _pairs(command: str, arguments: list[bytes]) -> list[tuple[str, bytes]]:
    if len(arguments) % 2 == 0:
        raise CommandFault(wrong_arity(command))
    return [(key.decode(), value) for key, value in zip(arguments[1::2], arguments[2::2], strict=True)]


def length(session: RespSession, arguments: list[bytes]) -> Step:
    """STRLEN key"""
    return operations.Get(arguments[1].decode()), _length


def _length(result: Outcome, session: RespSession) -> bytes:
    if type(result) is tuple:
        return b":%d\r\n" % len(result[0])
    return ZERO if result_shapes.is_unmet(result) else result_shapes.failed(result)


def _row(
    name: str,
    arity: int,
    its_flags: str,
    since: str,
    summary: str,
    handler: Handler,
    last_key: int = 1,
    step: int = 1,
    run: RunHandler | None = None,
) -> Command:
    return command_row(name, arity, its_flags, since, summary, handler, "string", (1, last_key, step), run)


ROWS: Final = (
    _row("get", 2, "readonly fast", "1.0.0", "Read the value of a key.", get, run=get_run),
    _row(
        "set", -3, "write denyoom", "1.0.0", "Set a key to a value, with conditions and an end.", set_value, run=set_run
    ),
    set_with_ttl("setex", 1000),
    set_with_ttl("psetex", 1),
    _row("setnx", 3, "write denyoom fast", "1.0.0", "Set a key that is missing.", set_if_absent),
    _row("getset", 3, "write denyoom fast", "1.0.0", "Set a key, and read the value of before.", get_and_set),
    _row("getdel", 2, "write fast", "6.2.0", "Remove a key, and read its value.", get_and_delete),
    _row("getex", -2, "write fast", "6.2.0", "Read a key, and give it another time to live.", get_and_expire),
    _row("mget", -2, "readonly fast", "1.0.0", "Read the values of several keys.", get_many, -1),
    _row("mset", -3, "write denyoom", "1.0.1", "Set several keys at once.", set_many, -1, 2),
    _row("msetnx", -3, "write denyoom", "1.0.1", "Set several keys if all are missing.", set_many_if_absent, -1, 2),
    _row("strlen", 2, "readonly fast", "2.2.0", "Tell the length of a value.", length),
)
