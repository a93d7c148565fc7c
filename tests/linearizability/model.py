"""The store as a history knows it: the one right effect and answer of each operation on given entries.

The same is said in checker/store.go, for the search; here it is for a replay, which knows the order. Keys whose time is
over are left out of the entries before an operation is asked for.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

COMPARE: Final = {"=": operator.eq, "!=": operator.ne, "<": operator.lt, ">": operator.gt}
INT64: Final = range(-(2**63), 2**63)


class Held(NamedTuple):
    """An entry: its value as the history shows it, its version, whether it has a time to live, and its lease."""

    value: str
    version: int
    mortal: bool = False
    lease: int = 0


Entries = dict[str, Held]


@dataclass
class Effect:
    """The changes of an operation, None for a key that is removed, and its answer. A ``code`` means no change."""

    changes: dict[str, Held | None] = field(default_factory=dict)
    code: int = 0
    actual: int | None = None
    number: int | None = None
    rows: list[dict[str, Any]] | None = None
    #: Whether a revision is taken, although nothing may have changed.
    takes_one: bool = False

    @property
    def changed(self) -> bool:
        """Whether it takes a revision."""
        return bool(self.changes) or self.takes_one


def effect(method: str, op: dict[str, Any], entries: Entries, revision: int) -> Effect:
    """The changes that an operation makes to some entries at its revision, and its answer."""
    fence, lease = op.get("fence"), op.get("lease", 0)
    if fence is not None and not any(found.version == fence and found.lease for found in entries.values()):
        return Effect(code=4011)
    match method:
        case "get" | "get_many":
            return Effect(rows=[row_of(key, entries) for key in op.get("keys", [op.get("key")])])
        case "exists":
            return Effect(number=int(op["key"] in entries))
        case "count" | "scan" | "look_back":
            keys = selected(op, entries)
            rows = None if method == "count" else [row_of(key, entries) for key in keys]
            return Effect(number=len(keys), rows=rows)
        case "set":
            refused = condition(op, entries)
            written = Held(op["value"], revision, bool(op.get("ttl_ms")), lease)
            return refused or Effect({op["key"]: written}, rows=[row_of(op["key"], entries)])
        case "set_many":
            return Effect({key: Held(value, revision) for key, value in op["items"]})
        case "delete":
            return condition(op, entries) or removal([op["key"]], entries)
        case "delete_many":
            return removal(op["keys"], entries)
        case "clear":
            return removal(selected(op, entries), entries)
        case "increment":
            return increment(op, entries, revision)
        case "rename":
            return rename(op, entries, revision)
        case "expire":
            return expire(op, entries, revision)
        case "grant_lease":
            return Effect(takes_one=True)
        case "transact":
            return transact(op, entries, revision)
        case _:
            raise AssertionError(method)


def row_of(key: str, entries: Entries) -> dict[str, Any]:
    """The row of a key in an answer."""
    found = entries.get(key)
    return (
        {"key": key, "missing": True} if found is None else {"key": key, "value": found.value, "version": found.version}
    )


def selected(op: dict[str, Any], entries: Entries) -> list[str]:
    """The keys of a range, in its order."""
    keys = sorted(key for key in entries if key.startswith(op["prefix"]))
    return (keys[::-1] if op.get("reverse") else keys)[: op.get("limit")]


def condition(op: dict[str, Any], entries: Entries) -> Effect | None:
    """The refusal of a change whose condition does not hold."""
    found = entries.get(op["key"])
    actual = 0 if found is None else found.version
    if op.get("if_version") not in {None, actual}:
        return Effect(code=4002, actual=actual)
    if op.get("if") == "absent" and found is not None:
        return Effect(code=4003)
    return Effect(code=4001) if op.get("if") == "present" and found is None else None


def removal(keys: list[str], entries: Entries) -> Effect:
    """Remove those of some keys that are there."""
    found = dict.fromkeys(key for key in keys if key in entries)
    return Effect(dict(found), number=len(found))


def increment(op: dict[str, Any], entries: Entries, revision: int) -> Effect:
    """Add to the number that a key holds, whose time and lease stay."""
    found = entries.get(op["key"])
    text = str(op.get("initial", 0)) if found is None else found.value
    if not text.lstrip("-").isdecimal() or str(int(text)) != text:
        return Effect(code=4004)
    number = int(text) + op["delta"]
    if number not in INT64:
        return Effect(code=4005)
    return Effect({op["key"]: (found or Held("", 0))._replace(value=str(number), version=revision)}, number=number)


def rename(op: dict[str, Any], entries: Entries, revision: int) -> Effect:
    """Move an entry with its time and its lease."""
    found = entries.get(op["key"])
    if found is None:
        return Effect(code=4001)
    if op.get("if") == "absent" and op["new_key"] in entries:
        return Effect(code=4003)
    return Effect({op["key"]: None} | {op["new_key"]: found._replace(version=revision)})


def expire(op: dict[str, Any], entries: Entries, revision: int) -> Effect:
    """Give a key another time, or none; it belongs to no lease any more."""
    found = entries.get(op["key"])
    if found is None:
        return Effect(code=4001)
    return Effect({op["key"]: Held(found.value, revision, bool(op["ttl_ms"]))})


def transact(op: dict[str, Any], entries: Entries, revision: int) -> Effect:
    """Make one of two lists of operations, each behind the ones before it, at one revision."""
    holds = all(compares(each, entries) for each in op["compares"])
    made, whole = dict(entries), Effect(number=int(holds), rows=[])
    assert whole.rows is not None
    for part in op["then"] if holds else op["otherwise"]:
        found = effect(part["method"], part, made, revision)
        if found.code:
            return replace(found, rows=None, number=None)
        if part["method"] == "get":
            whole.rows += found.rows or []
        whole.takes_one |= found.changed
        for key, held in found.changes.items():
            made.pop(key, None)
            if held is not None:
                made[key] = held
    whole.changes = {key: made.get(key) for key in entries.keys() | made.keys() if made.get(key) != entries.get(key)}
    return whole


def compares(each: dict[str, Any], entries: Entries) -> bool:
    """Whether a compare holds."""
    found = entries.get(each["key"])
    match each["field"]:
        case "exists":
            return (found is not None) is bool(each["number"])
        case "value":
            return found is not None and bool(COMPARE[each["operator"]](found.value, each["value"]))
        case _:
            return bool(COMPARE[each["operator"]](0 if found is None else found.version, each["number"]))
