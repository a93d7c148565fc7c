"""The commands of keys as such: whether they are there, their names, and all of them together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.dialects.resp import large_lists, result_shapes
from haptera.dialects.resp.error_words import NO_SUCH_KEY, SYNTAX, CommandFault, words_of
from haptera.dialects.resp.reply_encoding import OK, ZERO, integer, simple
from haptera.dialects.resp.steps import Command, Slow, command_row
from haptera.errors import Failure
from haptera.node.commands import operations

if TYPE_CHECKING:
    from haptera.dialects.resp.resp_session import RespSession
    from haptera.dialects.resp.steps import Handler, Outcome, Shape, Step

_STRING: Final = simple("string")
_NONE: Final = simple("none")
#: Bytes of values that are looked at and not sent.
_ANY_SIZE: Final = 1 << 62


def delete(session: RespSession, arguments: list[bytes]) -> Step:
    """DEL key [key ...], and UNLINK, which is the same here: memory is always freed in slices."""
    if len(arguments) == 2:
        return operations.Delete(arguments[1].decode()), result_shapes.one_if_true
    op = operations.DeleteMany([key.decode() for key in arguments[1:]])
    return large_lists.change(session, op, result_shapes.number)


def exists(session: RespSession, arguments: list[bytes]) -> Step:
    """EXISTS key [key ...]: a key that is named twice counts twice."""
    if len(arguments) == 2:
        return operations.Exists(arguments[1].decode()), result_shapes.one_if_true
    return large_lists.read(session, [key.decode() for key in arguments[1:]], _count_of_found, _ANY_SIZE)


def _count_of_found(result: Outcome, session: RespSession) -> bytes:
    if type(result) is not tuple:
        return result_shapes.failed(result)
    return integer(sum(entry is not None for entry in result[0]))


def type_of(session: RespSession, arguments: list[bytes]) -> Step:
    """TYPE key: all values are strings."""
    return operations.Exists(arguments[1].decode()), _type


def _type(result: Outcome, session: RespSession) -> bytes:
    if type(result) is not tuple:
        return result_shapes.failed(result)
    return _STRING if result[0] else _NONE


def move(session: RespSession, arguments: list[bytes]) -> Step:
    """RENAME key newkey: the value takes its time to live with it. A key that gets its own name stays as it is."""
    if arguments[1] == arguments[2]:
        return operations.Exists(arguments[1].decode()), _named_as_it_is(OK)
    return operations.Rename(arguments[1].decode(), arguments[2].decode()), result_shapes.done


def _named_as_it_is(reply: bytes) -> Shape:
    """The shape of a rename that changes nothing: the reply for a key that is there."""

    def shape(result: Outcome, session: RespSession) -> bytes:
        if type(result) is not tuple:
            return result_shapes.failed(result)
        return reply if result[0] else NO_SUCH_KEY

    return shape


def move_if_absent(session: RespSession, arguments: list[bytes]) -> Step:
    """RENAMENX key newkey"""
    if arguments[1] == arguments[2]:
        return operations.Exists(arguments[1].decode()), _named_as_it_is(ZERO)
    op = operations.Rename(arguments[1].decode(), arguments[2].decode(), if_absent=True)
    return op, result_shapes.one_unless_exists


def touch(session: RespSession, arguments: list[bytes]) -> Step:
    """TOUCH key [key ...]: nothing depends on when a key was read last, so it counts keys as EXISTS does."""
    return exists(session, arguments)


def count_all(session: RespSession, arguments: list[bytes]) -> Step:
    """DBSIZE"""

    async def run() -> bytes:
        counted = await session.caller.count(operations.Count())
        return words_of(counted) if isinstance(counted, Failure) else integer(counted)

    return Slow(run)


def clear(session: RespSession, arguments: list[bytes]) -> Step:
    """FLUSHALL [ASYNC | SYNC], and FLUSHDB: there is one database. Both free the memory in slices."""
    if len(arguments) > 2 or (len(arguments) == 2 and arguments[1].upper() not in {b"ASYNC", b"SYNC"}):
        raise CommandFault(SYNTAX)
    return operations.Clear(), result_shapes.done


def _row(
    name: str,
    arity: int,
    its_flags: str,
    since: str,
    summary: str,
    handler: Handler,
    keys: tuple[int, int, int] = (1, 1, 1),
    group: str = "generic",
) -> Command:
    return command_row(name, arity, its_flags, since, summary, handler, group, keys)


_ALL: Final = (1, -1, 1)
_NO_KEYS: Final = (0, 0, 0)

ROWS: Final = (
    _row("del", -2, "write", "1.0.0", "Remove keys.", delete, _ALL),
    _row("unlink", -2, "write fast", "4.0.0", "Remove keys.", delete, _ALL),
    _row("exists", -2, "readonly fast", "1.0.0", "Count the keys that are there.", exists, _ALL),
    _row("touch", -2, "readonly fast", "3.2.1", "Count the keys that are there.", touch, _ALL),
    _row("type", 2, "readonly fast", "1.0.0", "Tell the type of a value.", type_of),
    _row("rename", 3, "write", "1.0.0", "Give a value another key.", move, (1, 2, 1)),
    _row(
        "renamenx",
        3,
        "write fast",
        "1.0.0",
        "Give a value another key if that is missing.",
        move_if_absent,
        (1, 2, 1),
    ),
    _row("dbsize", 1, "readonly fast", "1.0.0", "Count all keys.", count_all, _NO_KEYS, "server"),
    _row("flushall", -1, "write", "1.0.0", "Remove all keys.", clear, _NO_KEYS, "server"),
    _row("flushdb", -1, "write", "1.0.0", "Remove all keys.", clear, _NO_KEYS, "server"),
)
