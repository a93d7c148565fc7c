"""Transacts for property tests: a strategy, and what each of them does to a model that is a dict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import hypothesis.strategies as st

from haptera.state.operations import Compare, Delete, Exists, Get, Increment, Rename, Set, Transact

if TYPE_CHECKING:
    from haptera.state import Operation


#: For a store without leases.
NO_LEASE: Final = st.just(0)


def transacts(
    keys: st.SearchStrategy[str], values: st.SearchStrategy[bytes], *, leases: st.SearchStrategy[int] = NO_LEASE
) -> st.SearchStrategy[Transact]:
    """Transacts of few parts; most of their compares hold of an empty store or of the first versions. The ``leases``
    are those that they compare with and set keys with; 0 is none.
    """
    compares = st.one_of(
        st.builds(Compare, keys, st.just("version"), st.sampled_from("=<>") | st.just("!="), st.integers(0, 8)),
        st.builds(Compare, keys, st.just("value"), st.sampled_from("=<>") | st.just("!="), values),
        st.builds(Compare, keys, st.just("exists"), st.sampled_from(["=", "!="]), st.booleans()),
        st.builds(Compare, keys, st.just("lease"), st.sampled_from(["=", "!="]), leases),
    )
    operations: st.SearchStrategy[Operation] = st.one_of(
        st.builds(Set, keys, values, lease=leases.map(lambda lease: lease or None)),
        st.builds(Set, keys, values, st.none() | st.integers(0, 8), st.sampled_from([None, "absent"]), st.booleans()),
        st.builds(Delete, keys, return_previous=st.booleans()),
        st.builds(Get, keys),
        st.builds(Exists, keys),
        st.builds(Increment, keys, st.sampled_from([1, -3])),
        st.builds(Rename, keys, keys, st.booleans()),
    )
    branch = st.lists(operations, max_size=5)
    return st.builds(Transact, st.lists(compares, max_size=2), branch, branch)


class Model(Protocol):
    """A store as a dict, which does one operation at a time: a result, or the code of the failure."""

    entries: dict[str, Any]
    attached: dict[str, int]  # the lease of each key that belongs to one
    revision: int

    def entry(self, key: str) -> tuple[bytes, int, int | None] | None:
        """The entry of a key, unless it is dead."""

    def do(self, op: Operation) -> tuple[Any, ...] | int: ...


def transact(model: Model, op: Transact) -> tuple[Any, ...] | int:
    """Do it to the model: one operation after the other, and all of them back if one fails."""
    entries, attached, revision = dict(model.entries), dict(model.attached), model.revision
    succeeded = all(holds(model, each) for each in op.compares)
    results: list[Any] = []
    version = None
    for each in op.then if succeeded else op.otherwise:
        model.revision = revision
        result = read(model, each) if isinstance(each, (Get, Exists)) else model.do(each)
        if isinstance(result, int):
            model.entries, model.attached, model.revision = entries, attached, revision
            return result
        version = max(version or 0, model.revision) if model.revision > revision else version
        results.append(result)
    model.revision = version or revision
    return succeeded, version, tuple(results)


def read(model: Model, op: Get | Exists) -> tuple[Any, ...] | None:
    """A read in a transact: a missing key is None."""
    entry = model.entry(op.key)
    return (entry is not None,) if isinstance(op, Exists) else entry


def holds(model: Model, compare: Compare) -> bool:
    """Whether a compare holds."""
    value, version, _ = model.entry(compare.key) or (None, 0, None)
    operand: Any = compare.operand
    if compare.field == "lease":
        return (model.attached.get(compare.key, 0) == operand) is (compare.operator == "=")
    if compare.field == "exists":
        return (version > 0) is (operand is (compare.operator == "="))
    if compare.field == "value" and value is None:
        return False
    actual: Any = version if compare.field == "version" else value
    less, equal = bool(actual < operand), bool(actual == operand)
    return {"=": equal, "!=": not equal, "<": less, ">": not less and not equal}[compare.operator]
