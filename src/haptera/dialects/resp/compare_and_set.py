"""The commands that compare and change in one step: DELEX, DELIFEQ, MSETEX, INCREX, and the conditions of SET.

Each is one change of the store, judged where all changes are: in the order of the log. A condition on a value is a
compare of a transact. INCREX is judged by the entry of its key (`haptera.dialects.resp.judged_changes`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from haptera.dialects.resp import result_shapes
from haptera.dialects.resp.argument_values import (
    EXPIRY_OPTIONS,
    OPTIONS_OF_SET,
    SetOptions,
    ending,
    expiry,
    integer,
    set_options,
)
from haptera.dialects.resp.atomic_execution import PARTS_MAX
from haptera.dialects.resp.error_words import (
    NOT_AN_INTEGER,
    SYNTAX,
    CommandFault,
    error_of_many,
    wrong_arity,
)
from haptera.dialects.resp.reply_encoding import OK, ONE, ZERO, array, error
from haptera.dialects.resp.reply_encoding import integer as integer_reply
from haptera.dialects.resp.steps import Command, Judged, flags
from haptera.key_rules import INT64_MAX, INT64_MIN, KEYS_PER_COMMAND_MAX, number_of
from haptera.node.commands import operations

if TYPE_CHECKING:
    from haptera.dialects.resp.resp_session import RespSession
    from haptera.dialects.resp.steps import Handler, Outcome, Shape, Step

#: The reply to a condition on the digest of a value.
NO_DIGESTS: Final = error("ERR IFDEQ and IFDNE are not supported, because this server keeps no digests of values")
_BAD_KEY_COUNT: Final = error("ERR invalid numkeys value")
_BAD_PAIRS: Final = error("ERR wrong number of key-value pairs")
_BAD_BOUNDS: Final = error("ERR LBOUND is greater than UBOUND")
_NO_FLOATS: Final = error("ERR BYFLOAT is not supported, because the counters of this server are integers")

_CONDITIONS: Final = frozenset({b"IFEQ", b"IFNE"})
_DIGEST_CONDITIONS: Final = frozenset({b"IFDEQ", b"IFDNE"})


# -- SET --------


def value_condition(arguments: list[bytes]) -> tuple[bytes, bytes, list[bytes]] | None:
    """The condition on the value of before among the options of SET, its operand, and the other options; None where
    there is none. Raises CommandFault.
    """
    at = 0
    while at < len(arguments):
        option = arguments[at].upper()
        if option in _CONDITIONS or option in _DIGEST_CONDITIONS:
            others = arguments[:at] + arguments[at + 2 :]
            if at + 1 == len(arguments) or {b"NX", b"XX", *_CONDITIONS, *_DIGEST_CONDITIONS} & _options(others):
                raise CommandFault(SYNTAX)
            if option in _DIGEST_CONDITIONS:
                raise CommandFault(NO_DIGESTS)
            return option, arguments[at + 1], others
        at += 2 if option in EXPIRY_OPTIONS else 1
    return None


def _options(arguments: list[bytes]) -> set[bytes]:
    """The options among some arguments, without the numbers behind those that say when a key expires."""
    found, at = set(), 0
    while at < len(arguments):
        option = arguments[at].upper()
        found.add(option)
        at += 2 if option in EXPIRY_OPTIONS else 1
    return found


def set_if_value(
    key: str, value: bytes, condition: bytes, operand: bytes, options: SetOptions, ttl_ms: int | None
) -> Step:
    """A set on a condition on the value of before. A missing key has none, so it is not equal to any."""
    get = options.get
    change: operations.OfOneKey = operations.Set(
        key, value, return_previous=get, ttl_ms=ttl_ms, keep_ttl=options.keep_ttl
    )
    if ttl_ms is not None and ttl_ms <= 0:
        change = operations.Delete(key, return_previous=get)
    kept: list[operations.OfOneKey] = [operations.Get(key)] if get else []
    made = condition == b"IFEQ"
    compares = [operations.Compare(key, "value", "=", operand)]
    op = operations.Transact(compares, [change] if made else kept, kept if made else [change])
    return op, _previous_value(made) if get else _done_if(made)


def _done_if(made: bool) -> Shape:
    """OK where the branch that changes was chosen, and null where the other one was."""

    def shape(result: Outcome, session: RespSession) -> bytes:
        if type(result) is not tuple:
            return result_shapes.failed(result)
        return OK if result[0] is made else session.null

    return shape


def _previous_value(made: bool) -> Shape:
    """The value of before, from the branch that was chosen."""

    def shape(result: Outcome, session: RespSession) -> bytes:
        if type(result) is not tuple:
            return result_shapes.failed(result)
        (part,) = result[2]
        entry = part[-1] if result[0] is made else part
        return session.null if entry is None else result_shapes.value(entry, session)

    return shape


# -- DELEX and DELIFEQ --------


def delete_if(session: RespSession, arguments: list[bytes]) -> Step:
    """DELEX key [IFEQ value | IFNE value]"""
    key = arguments[1].decode()
    if len(arguments) == 2:
        return operations.Delete(key), result_shapes.one_if_true
    if len(arguments) != 4:
        raise CommandFault(wrong_arity("delex"))
    condition = arguments[2].upper()
    if condition in _DIGEST_CONDITIONS:
        raise CommandFault(NO_DIGESTS)
    if condition not in _CONDITIONS:
        raise CommandFault(SYNTAX)
    return _deletion(key, arguments[3], if_equal=condition == b"IFEQ")


def delete_if_equal(session: RespSession, arguments: list[bytes]) -> Step:
    """DELIFEQ key value"""
    return _deletion(arguments[1].decode(), arguments[2], if_equal=True)


def _deletion(key: str, operand: bytes, *, if_equal: bool) -> Step:
    compares = [operations.Compare(key, "value", "=", operand)]
    delete: list[operations.OfOneKey] = [operations.Delete(key)]
    if if_equal:
        return operations.Transact(compares, delete), result_shapes.one_if_true
    return operations.Transact(compares, [], delete), _one_if_deleted


def _one_if_deleted(result: Outcome, session: RespSession) -> bytes:
    if type(result) is not tuple:
        return result_shapes.failed(result)
    succeeded, _, results = result
    return ZERO if succeeded or not results[0][0] else ONE


# -- MSETEX --------


def set_many_with_options(session: RespSession, arguments: list[bytes]) -> Step:
    """MSETEX numkeys key value [key value ...] [NX | XX] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]"""
    count = number_of(arguments[1])
    if count is None or not 0 < count <= KEYS_PER_COMMAND_MAX:
        raise CommandFault(_BAD_KEY_COUNT)
    behind = 2 + 2 * count
    if len(arguments) < behind:
        raise CommandFault(_BAD_PAIRS)
    items = [(arguments[at].decode(), arguments[at + 1]) for at in range(2, behind, 2)]
    options = set_options(arguments[behind:], OPTIONS_OF_SET - {b"GET"})
    ttl_ms = None if options.expiry is None else expiry("msetex", *options.expiry, session.now_ms)
    expired = ttl_ms is not None and ttl_ms <= 0
    if options.condition is None and not options.keep_ttl and not expired:
        return operations.SetMany(items, ttl_ms=ttl_ms), _one
    if count > PARTS_MAX:
        raise CommandFault(error_of_many("msetex", PARTS_MAX))
    present = options.condition == "present"
    compares = [operations.Compare(key, "exists", "=", present) for key, _ in items] if options.condition else []
    changes: list[operations.OfOneKey] = [
        operations.Delete(key) if expired else operations.Set(key, value, ttl_ms=ttl_ms, keep_ttl=options.keep_ttl)
        for key, value in items
    ]
    return operations.Transact(compares, changes), result_shapes.one_if_true


def _one(result: Outcome, session: RespSession) -> bytes:
    return ONE if type(result) is tuple else result_shapes.failed(result)


# -- INCREX --------


class _Increase(Struct):
    """The options of INCREX. ``ends`` is the option and the number that say when the key expires."""

    by: int = 1
    low: int = INT64_MIN
    high: int = INT64_MAX
    saturate: bool = False
    ends: tuple[bytes, int] | None = None
    persist: bool = False
    only_without_end: bool = False


def increase(session: RespSession, arguments: list[bytes]) -> Step:
    """INCREX key [BYINT n] [LBOUND n] [UBOUND n] [SATURATE] [EX s | PX ms | EXAT s | PXAT ms | PERSIST] [ENX]"""
    key, options = arguments[1].decode(), _increase_options(arguments[2:])
    ttl_ms = None
    if options.ends is not None:
        unit, number = options.ends
        ttl_ms = ending("increx", number, *EXPIRY_OPTIONS[unit], session.now_ms)
    return Judged(key, lambda entry: _increased(entry, key, options, ttl_ms))


def _increase_options(arguments: list[bytes]) -> _Increase:
    options, seen = _Increase(), set()
    rest = iter(arguments)
    for argument in rest:
        option = argument.upper()
        kind = b"end" if option in EXPIRY_OPTIONS or option == b"PERSIST" else option
        if kind in seen:
            raise CommandFault(SYNTAX)
        seen.add(kind)
        if option == b"BYFLOAT":
            raise CommandFault(_NO_FLOATS)
        if option in _FLAGS:
            setattr(options, _FLAGS[option], True)
            continue
        if option not in _NUMBERS and option not in EXPIRY_OPTIONS:
            raise CommandFault(SYNTAX)
        operand = next(rest, None)
        if operand is None:
            raise CommandFault(SYNTAX)
        number = integer(operand)
        if option in _NUMBERS:
            setattr(options, _NUMBERS[option], number)
        else:
            expiry("increx", option, operand, lambda: 0)  # a number that is not above 0 is none
            options.ends = (option, number)
    if options.only_without_end and options.ends is None:
        raise CommandFault(SYNTAX)
    if options.low > options.high:
        raise CommandFault(_BAD_BOUNDS)
    return options


def _increased(
    entry: tuple[Any, ...] | None, key: str, options: _Increase, ttl_ms: int | None
) -> bytes | tuple[operations.Write, bytes]:
    """Add to a number, within the bounds, and give the key its end; the number and how much was added."""
    before, ends_at_ms = (0, None) if entry is None else (number_of(entry[0]), entry[2])
    if before is None:
        return NOT_AN_INTEGER
    after = before + options.by
    if not options.low <= after <= options.high:
        if not options.saturate:
            return array([integer_reply(before), ZERO])
        after = min(max(after, options.low), options.high)
    reply = array([integer_reply(after), integer_reply(after - before)])
    value = b"%d" % after
    if ttl_ms is None or (options.only_without_end and ends_at_ms is not None):
        return operations.Set(key, value, keep_ttl=not options.persist), reply
    return operations.Set(key, value, ttl_ms=ttl_ms) if ttl_ms > 0 else operations.Delete(key), reply


_NUMBERS: Final = {b"BYINT": "by", b"LBOUND": "low", b"UBOUND": "high"}
_FLAGS: Final = {b"SATURATE": "saturate", b"PERSIST": "persist", b"ENX": "only_without_end"}


def _row(name: str, arity: int, its_flags: str, since: str, summary: str, handler: Handler) -> Command:
    at = 0 if "movablekeys" in its_flags else 1
    return Command(
        name=name,
        arity=arity,
        flags=flags(its_flags),
        group="string",
        since=since,
        summary=summary,
        handler=handler,
        first_key=at,
        last_key=at,
        key_step=at,
    )


ROWS: Final = (
    _row("delex", -2, "write fast", "8.4.0", "Remove a key if its value is, or is not, a certain one.", delete_if),
    _row("delifeq", 3, "write fast", "9.0.0", "Remove a key if its value is a certain one.", delete_if_equal),
    _row(
        "msetex",
        -4,
        "write denyoom movablekeys",
        "8.4.0",
        "Set several keys at once, with a condition and an end.",
        set_many_with_options,
    ),
    _row("increx", -2, "write denyoom fast", "8.8.0", "Add to a number within bounds, and give it an end.", increase),
)
