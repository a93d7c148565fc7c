"""The commands that count: INCR and its kin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.dialects.resp import result_shapes
from haptera.dialects.resp.argument_values import integer
from haptera.dialects.resp.error_words import DECREMENT_OVERFLOW, CommandFault
from haptera.dialects.resp.steps import Command, command_row
from haptera.key_rules import INT64_MIN
from haptera.node.commands import operations

if TYPE_CHECKING:
    from haptera.dialects.resp.resp_session import RespSession
    from haptera.dialects.resp.steps import Handler, Step


def increment(session: RespSession, arguments: list[bytes]) -> Step:
    """INCR key"""
    return operations.Increment(arguments[1].decode(), 1), result_shapes.number


def decrement(session: RespSession, arguments: list[bytes]) -> Step:
    """DECR key"""
    return operations.Increment(arguments[1].decode(), -1), result_shapes.number


def increment_by(session: RespSession, arguments: list[bytes]) -> Step:
    """INCRBY key increment"""
    return operations.Increment(arguments[1].decode(), integer(arguments[2])), result_shapes.number


def decrement_by(session: RespSession, arguments: list[bytes]) -> Step:
    """DECRBY key decrement"""
    number = integer(arguments[2])
    if number == INT64_MIN:
        raise CommandFault(DECREMENT_OVERFLOW)
    return operations.Increment(arguments[1].decode(), -number), result_shapes.number


def _row(name: str, arity: int, summary: str, handler: Handler) -> Command:
    return command_row(name, arity, "write denyoom fast", "1.0.0", summary, handler, "string")


ROWS: Final = (
    _row("incr", 2, "Add 1 to the number that a key is.", increment),
    _row("decr", 2, "Subtract 1 from the number that a key is.", decrement),
    _row("incrby", 3, "Add a number to the number that a key is.", increment_by),
    _row("decrby", 3, "Subtract a number from the number that a key is.", decrement_by),
)
