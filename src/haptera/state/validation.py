"""The checks of a command before it is judged, and above all before it is logged (spec/protocol.md, section 7)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from haptera.errors import Failure
from haptera.key_rules import bound_refusal, count_refusal, invalid, keys_refusal, size_refusal
from haptera.state import limits
from haptera.state.command_encoding import COMMAND_OVERHEAD
from haptera.state.field_kinds import ItemsKind, acceptance, kinds, list_field
from haptera.state.glob import Glob, MalformedGlob, compile_steps
from haptera.state.operations import OPERATIONS, DeleteMany, GetMany, Operation, SetMany
from haptera.state.sliced_work import Steps, finish


def validate(op: Operation) -> Failure | None:
    """None for an operation that can be executed, else why not; nothing was applied.

    3003 an argument out of its range or a malformed glob, 3004 a command above `limits.COMMAND_SIZE_MAX`, 4006 a key
    that cannot be one, 4007 a value that is too large. The details never repeat a refused key: it may be of any size,
    and need not even be text that can be encoded.
    """
    return None if _ACCEPTED[type(op)](op) else _refusal(op)


def validate_steps(op: SetMany | DeleteMany | GetMany) -> Steps[Failure | int]:
    """As `validate`, in slices: the operation's `size_bound`, or why it cannot be executed."""
    field, kind = _LISTS[type(op)]
    elements = getattr(op, field)
    refused = count_refusal(field, len(elements))
    if refused is not None:
        return refused
    size = COMMAND_OVERHEAD
    for piece in _pieces(elements):
        size += kind.size_of(piece)
        if size > limits.COMMAND_SIZE_MAX:
            return size_refusal(limits.COMMAND_SIZE_MAX)
        yield len(piece)
    position = 0
    for piece in _pieces(elements):
        refused = keys_refusal(kind.keys(piece), position)
        if refused is not None:
            return refused
        position += len(piece)
        yield len(piece) * 2
    if isinstance(kind, ItemsKind):
        for piece in _pieces(elements):
            refused = kind.value_refusal(piece)
            if refused is not None:
                return refused
            yield len(piece)
    return size


def glob_steps(text: str) -> Steps[Glob | Failure]:
    """A glob of a range that `validate` would accept, compiled in slices; or why it is refused."""
    refused = bound_refusal("glob", text)
    if refused is not None:
        return refused
    try:
        return (yield from compile_steps(text))
    except MalformedGlob as error:
        return invalid("glob", str(error))


def _pieces(items: list[Any]) -> Iterator[list[Any]]:
    """The items, as many at a time as a slice of `limits.SLICE_WORK_MAX` may look at."""
    rest = iter(items)
    while piece := list(islice(rest, limits.SLICE_WORK_MAX // 4)):
        yield piece


def _refusal(op: Operation) -> Failure | None:
    """Why an operation is refused: for the first field, in order, that refuses it."""
    if isinstance(op, (SetMany, DeleteMany, GetMany)):
        found = finish(validate_steps(op))
        return found if isinstance(found, Failure) else None
    for name, kind in _KINDS[type(op)].items():
        refused = kind.refusal(name, op)
        if refused is not None:
            return refused
    return None


_ACCEPTED: Final = {command: acceptance(command) for command in OPERATIONS}
_KINDS: Final = {command: kinds(command) for command in OPERATIONS}
_LISTS: Final = {command: found for command in OPERATIONS if (found := list_field(command)) is not None}
