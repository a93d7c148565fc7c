"""What a command must be before it is judged, and above all before it is logged (spec/protocol.md, section 7)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final

from haptera.error_codes import Code
from haptera.errors import Failure, failure
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
    refused = _bounded(field, len(items))
    if refused is not None:
        return refused
    size = COMMAND_OVERHEAD
    for piece in _pieces(items):
        size += size_of_items(piece) if isinstance(op, SetMany) else size_of_keys(piece)
        if size > limits.COMMAND_SIZE_MAX:
            return failure(Code.MESSAGE_TOO_LARGE, {"size_max": limits.COMMAND_SIZE_MAX}, outcome="not_applied")
        yield len(piece)
    position = 0
    for piece in _pieces(items):
        refused = _keys((key for key, _ in piece) if isinstance(op, SetMany) else piece, position)
        if refused is not None:
            return refused
        position += len(piece)
        yield len(piece) * 2
    if isinstance(op, SetMany):
        for piece in _pieces(items):
            for key, value in piece:
                if len(value) > limits.VALUE_SIZE_MAX:
                    return _too_large_value(value, {"key": key})
            yield len(piece)
    return size


def glob_steps(text: str) -> Steps[Glob | Failure]:
    """A glob of a range that `validate` would accept, compiled in slices; or why it is refused."""
    refused = _bound("glob", text)
    if refused is not None:
        return refused
    try:
        return (yield from compile_steps(text))
    except MalformedGlob as error:
        return _invalid("glob", str(error))


def _pieces(items: list[Any]) -> Iterator[list[Any]]:
    """The items, as many at a time as a slice of `limits.SLICE_WORK_MAX` may look at."""
    rest = iter(items)
    while piece := list(islice(rest, limits.SLICE_WORK_MAX // 4)):
        yield piece


def _key(key: str) -> Failure | None:
    if key and len(key) <= limits.KEY_SIZE_MAX and "\0" not in key and (key.isascii() or _encodable(key)):
        return None
    return _invalid_key(key, {})


def _keys(keys: Iterable[str], first: int) -> Failure | None:
    for position, key in enumerate(keys, first):
        if _key(key) is not None:
            return _invalid_key(key, {"position": position})
    return None


def _encodable(text: str) -> bool:
    """Whether the text is UTF-8 of the size of a key: Python's texts may hold lone surrogates, which have none."""
    try:
        return len(text.encode()) <= limits.KEY_SIZE_MAX
    except UnicodeEncodeError:
        return False


def _invalid_key(key: str, details: dict[str, Any]) -> Failure:
    if not key:
        reason = "empty"
    elif "\0" in key:
        reason = "holds a NUL"
    elif len(key.encode("utf-8", "surrogatepass")) > limits.KEY_SIZE_MAX:
        reason = f"longer than {limits.KEY_SIZE_MAX} bytes"
    else:
        reason = "not UTF-8"
    return failure(Code.INVALID_KEY, {"reason": reason, **details})


def _invalid(field: str, reason: str) -> Failure:
    return failure(Code.INVALID_ARGUMENT, {"field": field, "reason": reason}, outcome="not_applied")


def _too_large_value(value: bytes, details: dict[str, Any]) -> Failure:
    return failure(Code.VALUE_TOO_LARGE, {"size": len(value), "size_max": limits.VALUE_SIZE_MAX, **details})


def _number(field: str, number: int, low: int, high: int) -> Failure | None:
    return None if low <= number <= high else _invalid(field, f"not between {low} and {high}")


def _if_version(number: int | None) -> Failure | None:
    return None if number is None else _number("if_version", number, 0, limits.REVISION_MAX)


def _one_key(op: Get | Exists) -> Failure | None:
    return _key(op.key)


def _set(op: Set) -> Failure | None:
    key = op.key
    if not key or len(key) > limits.KEY_SIZE_MAX or "\0" in key or not (key.isascii() or _encodable(key)):
        return _invalid_key(key, {})
    if len(op.value) > limits.VALUE_SIZE_MAX:
        return _too_large_value(op.value, {"key": key})
    if op.condition is not None and op.condition not in {"absent", "present"}:
        return _invalid("if", "neither absent nor present")
    return None if op.if_version is None else _if_version(op.if_version)


def _delete(op: Delete) -> Failure | None:
    return _key(op.key) or _if_version(op.if_version)


def _many(op: SetMany | DeleteMany | GetMany) -> Failure | None:
    found = finish(validate_steps(op))
    return found if isinstance(found, Failure) else None


def _bounded(field: str, count: int) -> Failure | None:
    return None if count <= limits.KEYS_PER_COMMAND_MAX else _invalid(field, f"more than {limits.KEYS_PER_COMMAND_MAX}")


def _increment(op: Increment) -> Failure | None:
    return (
        _key(op.key)
        or _number("delta", op.delta, limits.INT64_MIN, limits.INT64_MAX)
        or _number("initial", op.initial, limits.INT64_MIN, limits.INT64_MAX)
    )


def _rename(op: Rename) -> Failure | None:
    return _key(op.key) or _key(op.new_key)


def _bound(field: str, text: str | None) -> Failure | None:
    """A bound need not be a key: it may be empty, and ``key + NUL`` is the first text behind a key."""
    if text is None or (len(text) <= limits.BOUND_SIZE_MAX and (text.isascii() or _encodable(text))):
        return None
    return _invalid(field, f"not UTF-8 of at most {limits.BOUND_SIZE_MAX} bytes")


def _glob(text: str | None) -> Failure | None:
    refused = _bound("glob", text)
    if refused is not None or text is None:
        return refused
    try:
        compile_glob(text)
    except MalformedGlob as error:
        return _invalid("glob", str(error))
    return None


def _count(op: Count) -> Failure | None:
    return _bound("prefix", op.prefix) or _bound("start", op.start) or _bound("end", op.end) or _glob(op.glob)


def _scan(op: Scan) -> Failure | None:
    return (
        _bound("prefix", op.prefix)
        or _bound("start", op.start)
        or _bound("end", op.end)
        or _bound("after", op.after)
        or (None if op.limit is None else _number("limit", op.limit, 0, limits.REVISION_MAX))
        or _glob(op.glob)
    )


def _clear(op: Clear) -> Failure | None:
    return _bound("prefix", op.prefix)


def _forget(op: Forget) -> Failure | None:
    if any(len(request_id) != 16 for request_id in op.request_ids):
        return _invalid("request_ids", "a request id is 16 bytes")
    return _bounded("request_ids", len(op.request_ids))


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
