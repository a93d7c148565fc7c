"""The refusal of an operation for want of a permission (spec/protocol.md, section 5.3).

The class of an operation says what it needs (`haptera.state.operations`). From that follows one expression for each
class, because a loop over its needs would take several times as long as the look at a key.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from haptera.errors import Code, Failure, failure
from haptera.key_rules import placed
from haptera.state import limits
from haptera.state.grant_patterns import look_work
from haptera.state.node_operations import SetMaintenance
from haptera.state.operation_sets import FENCED, OPERATIONS, list_fields, method_of
from haptera.state.operations import (
    AsOf,
    Count,
    OpenScan,
    OpenWatch,
    Operation,
    Transact,
    Write,
)
from haptera.state.permits import Permits

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from haptera.access_rules import KeyPermission, NodePermission
    from haptera.state.needs import Needs, Permissions
    from haptera.state.sliced_work import Steps

Refusal = Callable[[Any, Permits], Failure | None]

#: Units of work of a look at one key from which on it is made in slices: a quarter of a millisecond.
_LONG_LOOK: Final = limits.SLICE_WORK_MAX // 4


def denied(permission: KeyPermission | NodePermission, key: str | None = None) -> Failure:
    """Return 2004: a permission is missing, on this key where it is of one."""
    if key is None:
        return failure(Code.PERMISSION_DENIED, {"permission": permission}, outcome="not_applied")
    return failure(Code.PERMISSION_DENIED, {"permission": permission, "key": key}, outcome="not_applied")


def refusal(op: Operation, permits: Permits) -> Failure | None:
    """Why a valid operation is refused to the holder of these permits, or None.

    It is the same for each state of the store, so that it reveals nothing. A scan and a count are refused where they
    could show no key; `Permits.sieve` says which keys they show.
    """
    return REFUSALS[type(op)](op, permits)


def refusal_steps(op: Operation, permits: Permits) -> Steps[Failure | None]:
    """As `refusal`, in slices: a list has any length, and one key may be compared with many globs."""
    yield from permits.compile_steps()
    return (yield from _judged(op, permits))


def _judged(op: Operation, permits: Permits) -> Steps[Failure | None]:
    if isinstance(op, AsOf):
        return (yield from _judged(op.read, permits))
    if isinstance(op, Transact):
        return (yield from _judged_transact(op, permits))
    field, kind = _LISTS.get(type(op), ("", None))
    if kind is None or not getattr(op, field):
        return (yield from _judged_keys(op, permits))
    needs = op.needs
    assert needs is not None
    for permission in (*needs.keys, *needs.items, *_of_options(op)):
        refused = yield from _judged_list(permission, kind.keys(getattr(op, field)), permits)
        if refused is not None:
            return refused
    return _refusal_of_fence(op, permits)


def _judged_list(permission: KeyPermission, keys: Iterable[str], permits: Permits) -> Steps[Failure | None]:
    """The refusal of the first key on which a permission is missing."""
    check, cost = permits.check_of(permission), permits.cost(permission)
    work = 0
    for key in keys:
        look = look_work(cost, len(key))
        if look < _LONG_LOOK:
            work += look
            allowed = check(key)
        else:
            allowed = yield from permits.may_steps(permission, key)
        if not allowed:
            return denied(permission, key)
        if work >= limits.SLICE_WORK_MAX // 4:
            yield work
            work = 0
    return None


def _judged_keys(op: Operation, permits: Permits) -> Steps[Failure | None]:
    """The refusal of an operation of few keys, with a slice for each glob that one is compared with."""
    needs = op.needs
    if needs is None:
        return refusal(op, permits)
    looks = list(_looks(op, needs))
    for permission, key in looks:
        if not (yield from permits.may_steps(permission, key)):
            return denied(permission, key)
    return _refusal_of_fence(op, permits) if looks else refusal(op, permits)


def _looks(op: Any, needs: Needs) -> Iterator[tuple[KeyPermission, str]]:
    """The keys of an operation with the permissions that it needs on them, in the order in which they are judged."""
    if needs.key and op.key is not None:
        yield from ((permission, op.key) for permission in needs.key)
        yield from ((permission, op.new_key) for permission in needs.new_key)
        yield from ((permission, op.key) for permission in _of_options(op))


def _of_options(op: Operation) -> list[KeyPermission]:
    """The permissions that an operation needs because of the options that it was given."""
    needs = op.needs
    assert needs is not None
    return [permission for option, permission in needs.options.items() if _is_given(op, option)]


def _is_given(op: Operation, option: str) -> bool:
    value = getattr(op, option)
    return value is not None and value is not False


def _is_fenced(op: Operation) -> bool:
    return type(op) in FENCED and _is_given(op, "fence")


def _refusal_of_fence(op: Operation, permits: Permits) -> Failure | None:
    return denied("lease") if _is_fenced(op) and not permits.anywhere("lease") else None


def _first_denied(permission: KeyPermission, check: Callable[[str], bool], keys: Iterable[str]) -> Failure | None:
    return next((denied(permission, key) for key in keys if not check(key)), None)


def _refusal_of_transact(op: Transact, permits: Permits) -> Failure | None:
    """A compare reveals something of its key. Both branches are judged, because a refusal may not say which is made."""
    for number, compare in enumerate(op.compares):
        if not permits.read(compare.key):
            return placed(denied("read", compare.key), compare=number)
    for branch, parts in (("then", op.then), ("otherwise", op.otherwise)):
        for number, part in enumerate(parts):
            refused = REFUSALS[type(part)](part, permits)
            if refused is not None:
                return placed(refused, branch=branch, operation=number)
    return _refusal_beside_parts(op, permits)


def _refusal_beside_parts(op: Transact, permits: Permits) -> Failure | None:
    if not (op.compares or op.then or op.otherwise or permits.anywhere("read")):
        return denied("read")
    return _refusal_of_fence(op, permits)


def _judged_transact(op: Transact, permits: Permits) -> Steps[Failure | None]:
    """As `_refusal_of_transact`, part by part."""
    for number, compare in enumerate(op.compares):
        if not (yield from permits.may_steps("read", compare.key)):
            return placed(denied("read", compare.key), compare=number)
    for branch, parts in (("then", op.then), ("otherwise", op.otherwise)):
        for number, part in enumerate(parts):
            refused = yield from _judged(part, permits)
            if refused is not None:
                return placed(refused, branch=branch, operation=number)
    return _refusal_beside_parts(op, permits)


def shown_with(op: OpenScan | Count) -> Permissions:
    """The permissions without which a key is left out of a range."""
    return ("scan",) if isinstance(op, Count) or op.keys_only else ("scan", "read")


def _refusal_of_range(op: OpenScan | Count, permits: Permits) -> Failure | None:
    return next((denied(each) for each in shown_with(op) if not permits.anywhere(each)), None)


def _refusal_of_watch(op: OpenWatch, permits: Permits) -> Failure | None:
    if op.key is not None:
        key = op.key
        return next((denied(each, key) for each in OpenWatch.needs.key if not permits.may(each, key)), None)
    prefix = op.prefix or ""
    return next((denied(each) for each in OpenWatch.needs.prefix if not permits.covers(each, prefix)), None)


def _refusal_of_node_command(op: Operation, permits: Permits) -> Failure | None:
    """A command that is no method: the node gives it."""
    return denied("admin")


def _needing(permission: NodePermission) -> Refusal:
    return lambda op, permits: None if permits.has(permission) else denied(permission)


_SOMEWHERE: Final = "not permits.anywhere('{0}') and denied('{0}')"
#: The condition on which a permission is missing, of each field of `Needs`. A request for no key needs it on some key,
#: so that it is nothing for a user who may do nothing.
_CONDITIONS: Final = {
    "key": "not permits.{0}(op.key) and denied('{0}', op.key)",
    "keys": f"first_denied('{{0}}', permits.{{0}}, op.keys) if op.keys else {_SOMEWHERE}",
    "items": f"first_denied('{{0}}', permits.{{0}}, (key for key, _ in op.items)) if op.items else {_SOMEWHERE}",
    "prefix": "not permits.covers('{0}', op.prefix or '') and denied('{0}')",
    "new_key": "not permits.{0}(op.new_key) and denied('{0}', op.new_key)",
    "somewhere": _SOMEWHERE,
}


def _conditions(command: type[Operation]) -> Iterator[str]:
    needs = command.needs
    if needs is None:
        return
    on = {field: permissions for field in _CONDITIONS if (permissions := getattr(needs, field))}
    for field, permissions in on.items():
        for permission in permissions:
            yield _CONDITIONS[field].format(permission)
    for option, permission in needs.options.items():
        condition = _CONDITIONS[next(iter(on))].format(permission)
        yield f"op.{option} is not None and op.{option} is not False and ({condition})"
    if command in FENCED:
        yield f"op.fence is not None and {_SOMEWHERE.format('lease')}"


def _compiled(command: type[Operation]) -> Refusal:
    """Return the function that judges the operations of a class: the first condition that holds refuses."""
    conditions = list(_conditions(command))
    if not conditions:
        return _refusal_of_node_command
    either = " or ".join(f"({condition})" for condition in conditions)
    # Of the names of fields and permissions: nothing comes from outside.
    function: Refusal = eval(f"lambda op, permits: {either} or None", dict(_NAMES))  # noqa: S307
    return function


_NAMES: Final = {"denied": denied, "first_denied": _first_denied}
_LISTS: Final = list_fields(command for command in OPERATIONS if command.needs is not None)

#: The function that judges the operations of each class.
REFUSALS: Final[dict[type[Operation], Refusal]] = {
    **{command: _compiled(command) for command in OPERATIONS},
    OpenScan: _refusal_of_range,
    Count: _refusal_of_range,
    OpenWatch: _refusal_of_watch,
    Transact: _refusal_of_transact,
    AsOf: lambda op, permits: refusal(op.read, permits),
    SetMaintenance: _needing("admin"),
    # The log judges what a change of the users gives (`haptera.state.access_giving`). To it the anonymous user and the
    # local one may do everything, so others are held back here.
    **{
        command: _needing("user_admin")
        for command in OPERATIONS
        if method_of(command)[0] == "access" and not (issubclass(command, Write) and command.of_node)
    },
}
