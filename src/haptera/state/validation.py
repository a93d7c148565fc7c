"""The checks of a command before it is judged, and above all before it is logged (spec/protocol.md, section 7)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final

from haptera.errors import Code, Failure, failure
from haptera.key_rules import (
    VERSION_MAX,
    bound_refusal,
    count_refusal,
    invalid,
    key_refusal,
    keys_refusal,
    placed,
    size_refusal,
    value_refusal,
)
from haptera.state import limits
from haptera.state.command_encoding import COMMAND_OVERHEAD, size_bound
from haptera.state.field_kinds import FieldKind, ItemsKind, kinds, size_if_accepted
from haptera.state.glob import Glob, MalformedGlob, compile_steps
from haptera.state.operation_sets import FENCED, OPERATIONS, list_fields
from haptera.state.operations import (
    COMPARED,
    AsOf,
    Compare,
    DeleteMany,
    GetMany,
    Operation,
    SetMany,
    Transact,
)
from haptera.state.sliced_work import Steps, finish


def validate(op: Operation) -> Failure | None:
    """None for an operation that can be executed, else why not, as `accepted_size` tells it."""
    size = accepted_size(op)
    return size if isinstance(size, Failure) else None


def accepted_size(op: Operation) -> int | Failure:
    """The `size_bound` of an operation that can be executed, else why not; nothing was applied.

    3003 an argument out of its range or a malformed glob, 3004 a command above `limits.COMMAND_SIZE_MAX`, 4006 a key
    that cannot be one, 4007 a value that is too large, 4008 a transact of too many parts. The details never repeat a
    refused key: it may be of any size, and need not even be text that can be encoded.
    """
    size = SIZES_IF_ACCEPTED[type(op)](op)
    return (_refusal(op) or size_bound(op)) if size is None else size


def validate_steps(op: Operation) -> Steps[Failure | int]:
    """As `accepted_size`, in slices for an operation with a list of any length."""
    if isinstance(op, AsOf):
        size = yield from validate_steps(op.read)
        return size if isinstance(size, Failure) else _refusal_of_others(op, None) or size
    if type(op) not in _LISTS:
        return accepted_size(op)
    field, kind = _LISTS[type(op)]
    elements = getattr(op, field)
    refused = count_refusal(field, len(elements)) or _refusal_of_others(op, field)
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
    if isinstance(op, (SetMany, DeleteMany, GetMany, AsOf)):
        found = finish(validate_steps(op))
        return found if isinstance(found, Failure) else None
    if isinstance(op, Transact):
        return _transact_refusal(op)
    return _refusal_of_others(op, None)


def _refusal_of_others(op: Operation, but_for: str | None) -> Failure | None:
    for name, kind in _KINDS[type(op)].items():
        refused = None if name == but_for else kind.refusal(name, op)
        if refused is not None:
            return refused
    return None


def too_many_parts(field: str) -> Failure:
    """Return 4008 for a list of a transact."""
    return failure(Code.TRANSACTION_TOO_LARGE, {"field": field, "limit": limits.TRANSACT_PARTS_MAX})


def _transact_refusal(op: Transact) -> Failure | None:
    for field, parts in (("compares", op.compares), ("then", op.then), ("otherwise", op.otherwise)):
        if len(parts) > limits.TRANSACT_PARTS_MAX:
            return too_many_parts(field)
    if size_bound(op) > limits.COMMAND_SIZE_MAX:
        return size_refusal(limits.COMMAND_SIZE_MAX)
    refused = _KINDS[Transact]["fence"].refusal("fence", op)
    if refused is not None:
        return refused
    for position, compare in enumerate(op.compares):
        refused = _compare_refusal(compare)
        if refused is not None:
            return placed(refused, compare=position)
    for branch, operations in (("then", op.then), ("otherwise", op.otherwise)):
        for position, operation in enumerate(operations):
            refused = validate(operation)
            if type(operation) in FENCED and operation.fence is not None:  # type: ignore[union-attr]  # by FENCED
                refused = invalid("fence", "given in an operation: it belongs to the whole transact")
            if refused is not None:
                return placed(refused, branch=branch, operation=position)
    return None


def _compare_refusal(compare: Compare) -> Failure | None:
    refused, operand = key_refusal(compare.key), compare.operand
    if refused is not None:
        return refused
    if compare.operator not in COMPARED[compare.field]:
        return invalid("operator", f"{compare.operator} does not compare {compare.field}")
    match compare.field, operand:
        case "exists", bool():
            return None
        case "value", bytes():
            return value_refusal(compare.key, len(operand))
        case (("version" | "lease"), int()) if type(operand) is int and 0 <= operand <= VERSION_MAX:
            return None
        case _:
            return invalid("operand", f"not a {compare.field} to compare with")


#: For each kind of operation the function that gives the `accepted_size` of one that is acceptable, else None. Of a
#: transact and a read of the past `_refusal` says whether it is acceptable, because its parts are of many kinds.
SIZES_IF_ACCEPTED: Final[dict[type[Operation], Callable[[Any], int | None]]] = {
    **{command: size_if_accepted(command, COMMAND_OVERHEAD) for command in OPERATIONS},
    Transact: lambda _: None,
    AsOf: lambda _: None,
}
_KINDS: Final[dict[type[Operation], dict[str, FieldKind]]] = {
    **{command: kinds(command) for command in OPERATIONS},
    AsOf: kinds(AsOf),
}
_LISTS: Final = list_fields(OPERATIONS)
