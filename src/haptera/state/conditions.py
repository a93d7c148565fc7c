"""Changes that change nothing: a condition is not met, or there is nothing to change (spec/protocol.md, section 7).

Each function judges one command against the entry of its key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.errors import Code, Failure, failure
from haptera.key_rules import INT64_MAX, INT64_MIN, number_of

if TYPE_CHECKING:
    from haptera.state.operations import Delete, Increment, Set
    from haptera.state.results import Result, StoredEntry

_KEY_NOT_FOUND: Final = int(Code.KEY_NOT_FOUND)
_VERSION_MISMATCH: Final = int(Code.VERSION_MISMATCH)
_KEY_EXISTS: Final = int(Code.KEY_EXISTS)
_NOT_AN_INTEGER: Final = int(Code.NOT_AN_INTEGER)
_INTEGER_OVERFLOW: Final = int(Code.INTEGER_OVERFLOW)

#: The codes of the failures that a command may have when it is applied, but for 3007, of a lease or a key of one too
#: many: the same code says that the pipeline is full.
UNMET: Final = frozenset(
    {
        _KEY_NOT_FOUND,
        _VERSION_MISMATCH,
        _KEY_EXISTS,
        _NOT_AN_INTEGER,
        _INTEGER_OVERFLOW,
        int(Code.LEASE_NOT_FOUND),
        int(Code.FENCED),
        int(Code.MESSAGE_TOO_LARGE),  # the answer of a transact
    }
)


def unmet(op: Set, previous: StoredEntry | None) -> Failure | None:
    """Why a set is not made, if its conditions are not met."""
    if op.if_version is not None and op.if_version != (previous[1] if previous else 0):
        return _mismatch(op.key, op.if_version, previous)
    if op.condition is not None and (previous is None) is (op.condition == "present"):
        return failure(_KEY_EXISTS if previous else _KEY_NOT_FOUND, {"key": op.key})
    return None


def nothing_to_delete(op: Delete, previous: StoredEntry | None) -> Result | None:
    """The answer to a delete that deletes nothing; None for one that deletes."""
    if op.if_version is not None and op.if_version != (previous[1] if previous else 0):
        return _mismatch(op.key, op.if_version, previous)
    return (False, None, None) if previous is None else None


def sum_of(op: Increment, previous: StoredEntry | None) -> int | Failure:
    """The number that an increment makes, or why it makes none."""
    number = op.initial if previous is None else number_of(previous[0])
    if number is None:
        return failure(_NOT_AN_INTEGER, {"key": op.key})
    number += op.delta
    if not INT64_MIN <= number <= INT64_MAX:
        return failure(_INTEGER_OVERFLOW, {"key": op.key})
    return number


def _mismatch(key: str, expected: int, previous: StoredEntry | None) -> Failure:
    actual = previous[1] if previous else 0
    return failure(_VERSION_MISMATCH, {"key": key, "expected": expected, "actual": actual})
