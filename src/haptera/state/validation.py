"""What a command must be before it is judged, and above all before it is logged (spec/protocol.md, section 7)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final

from haptera.errors import Failure
from haptera.key_rules import (
    VALUE_SIZE_MAX,
    bound_refusal,
    count_refusal,
    invalid,
    invalid_key,
    is_key,
    key_refusal,
    keys_refusal,
    size_refusal,
    value_too_large,
)
from haptera.state import limits
from haptera.state.commands import (
    COMMAND_OVERHEAD,
    Clear,
    Count,
    Delete,
    DeleteMany,
    Exists,
    Forget,
    Get,
    GetMany,
    Increment,
    Operation,
    Rename,
    Scan,
    Set,
    SetMany,
    size_of_items,
    size_of_keys,
)
from haptera.state.glob import Glob, MalformedGlob, compile_glob, compile_steps
from haptera.state.steps import Steps, finish


def validate(op: Operation) -> Failure | None:
    """None for an operation that can be executed, else why not; nothing was applied.

    3003 an argument out of its range or a malformed glob, 3004 a command above `limits.COMMAND_SIZE_MAX`, 4006 a key
    that cannot be one, 4007 a value that is too large. The details never repeat a refused key: it may be of any size,
    and need not even be text that can be encoded.
    """
    return _VALIDATORS[type(op)](op)


def validate_steps(op: SetMany | DeleteMany | GetMany) -> Steps[Failure | int]:
    """As `validate`, in slices: the operation's `size_bound`, or why it cannot be executed."""
    items = op.items if isinstance(op, SetMany) else op.keys
    field = "items" if isinstance(op, SetMany) else "keys"
    refused = count_refusal(field, len(items))
    if refused is not None:
        return refused
    size = COMMAND_OVERHEAD
    for piece in _pieces(items):
        size += size_of_items(piece) if isinstance(op, SetMany) else size_of_keys(piece)
        if size > limits.COMMAND_SIZE_MAX:
            return size_refusal(limits.COMMAND_SIZE_MAX)
        yield len(piece)
    position = 0
    for piece in _pieces(items):
        refused = keys_refusal((key for key, _ in piece) if isinstance(op, SetMany) else piece, position)
        if refused is not None:
            return refused
        position += len(piece)
        yield len(piece) * 2
    if isinstance(op, SetMany):
        for piece in _pieces(items):
            for key, value in piece:
                if len(value) > VALUE_SIZE_MAX:
                    return value_too_large(key, len(value))
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


def _number(field: str, number: int, low: int, high: int) -> Failure | None:
    return None if low <= number <= high else invalid(field, f"not between {low} and {high}")


def _if_version(number: int | None) -> Failure | None:
    return None if number is None else _number("if_version", number, 0, limits.REVISION_MAX)


def _one_key(op: Get | Exists) -> Failure | None:
    return key_refusal(op.key)


def _set(op: Set) -> Failure | None:
    key = op.key
    if not is_key(key):
        return invalid_key(key)
    if len(op.value) > VALUE_SIZE_MAX:
        return value_too_large(key, len(op.value))
    if op.condition is not None and op.condition not in {"absent", "present"}:
        return invalid("if", "neither absent nor present")
    return None if op.if_version is None else _if_version(op.if_version)


def _delete(op: Delete) -> Failure | None:
    return key_refusal(op.key) or _if_version(op.if_version)


def _many(op: SetMany | DeleteMany | GetMany) -> Failure | None:
    found = finish(validate_steps(op))
    return found if isinstance(found, Failure) else None


def _increment(op: Increment) -> Failure | None:
    return (
        key_refusal(op.key)
        or _number("delta", op.delta, limits.INT64_MIN, limits.INT64_MAX)
        or _number("initial", op.initial, limits.INT64_MIN, limits.INT64_MAX)
    )


def _rename(op: Rename) -> Failure | None:
    return key_refusal(op.key) or key_refusal(op.new_key)


def _glob(text: str | None) -> Failure | None:
    refused = bound_refusal("glob", text)
    if refused is not None or text is None:
        return refused
    try:
        compile_glob(text)
    except MalformedGlob as error:
        return invalid("glob", str(error))
    return None


def _count(op: Count) -> Failure | None:
    return (
        bound_refusal("prefix", op.prefix)
        or bound_refusal("start", op.start)
        or bound_refusal("end", op.end)
        or _glob(op.glob)
    )


def _scan(op: Scan) -> Failure | None:
    return (
        bound_refusal("prefix", op.prefix)
        or bound_refusal("start", op.start)
        or bound_refusal("end", op.end)
        or bound_refusal("after", op.after)
        or (None if op.limit is None else _number("limit", op.limit, 0, limits.REVISION_MAX))
        or _glob(op.glob)
    )


def _clear(op: Clear) -> Failure | None:
    return bound_refusal("prefix", op.prefix)


def _forget(op: Forget) -> Failure | None:
    if any(len(request_id) != 16 for request_id in op.request_ids):
        return invalid("request_ids", "a request id is 16 bytes")
    return count_refusal("request_ids", len(op.request_ids))


_VALIDATORS: Final[dict[type, Callable[[Any], Failure | None]]] = {
    Get: _one_key,
    Exists: _one_key,
    GetMany: _many,
    Count: _count,
    Scan: _scan,
    Set: _set,
    Delete: _delete,
    SetMany: _many,
    DeleteMany: _many,
    Increment: _increment,
    Rename: _rename,
    Clear: _clear,
    Forget: _forget,
}
