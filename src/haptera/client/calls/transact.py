"""Arguments and results of `Database.transact`: the arrays of spec/protocol.md 7, as Python's own values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from haptera.client.calls.argument_checks import checked_int, plain_key, plain_value
from haptera.client.calls.entry import Entry, entry_of
from haptera.client.calls.methods import (
    Deleted,
    Existing,
    Found,
    Incremented,
    Method,
    Stored,
    Taken,
    TimeLeft,
    Transacted,
    Written,
)
from haptera.errors import Code, RemoteProtocolError
from haptera.key_rules import INT64_MAX, INT64_MIN, VERSION_MAX

#: A compare: a key, ``version``, ``value``, ``exists`` or ``lease``, an operator, and what it is compared with.
Compare = tuple[str, str, str, Any]
#: An operation: the name of a method, and its arguments, options in a dict at their end.
Operation = tuple[str, Sequence[Any]]

#: The lists of a transact: the compares, the operations to make if they hold, and those to make if not.
Lists = tuple[Iterable[Compare], Iterable[Operation], Iterable[Operation]]

#: What an operation of a transact answers with.
OperationResult = Entry | int | float | bool | None


class TransactResult(msgspec.Struct, frozen=True):
    """The answer to a transact.

    ``succeeded`` says whether all compares held, and so which of the two lists of operations was made. ``version`` is
    that of the changes, None where nothing was changed. ``results`` has what each operation gives: an `Entry` or None
    (get, get_and_delete, get_and_expire), a bool (exists, delete), the new version (set, rename, expire), the sum
    (increment), or the seconds that are left, None for a key that does not expire (ttl). A set and a delete with
    ``return_previous`` give the `Entry` of before, or None.
    """

    succeeded: bool
    version: int | None
    results: list[OperationResult]


class TransactForm:
    """Makes the arguments of transact and reads its answers. Of ``methods`` those of one key may be its operations."""

    def __init__(self, methods: Iterable[Method[Any]]) -> None:
        self._methods: dict[str, Method[Any]] = {method.name: method for method in methods if method.of_one_key}

    @property
    def operations(self) -> frozenset[str]:
        """The names of the operations."""
        return frozenset(self._methods)

    def argument(
        self, compare: Iterable[Compare], then: Iterable[Operation], otherwise: Iterable[Operation]
    ) -> tuple[Any, ...]:
        """The argument as it is encoded. Raises TypeError and ValueError for mistakes that are in the program."""
        # A tuple of compares, so that it is told from the list of keys that other arguments begin with.
        compares = tuple(self.compare(*each) for each in compare)
        return compares, [self.operation(*each) for each in then], [self.operation(*each) for each in otherwise]

    def result(self, argument: tuple[Any, ...], answer: Transacted) -> TransactResult:
        """The answer in terms of entries. Raises ``RemoteProtocolError`` for one that does not fit the argument."""
        operations = argument[1] if answer.succeeded else argument[2]
        try:
            results = [
                None if result is None else _converted(arguments, self._methods[name].convert(result))
                for (name, arguments), result in zip(operations, answer.results, strict=True)
            ]
        except ValueError as error:
            raise RemoteProtocolError(
                Code.MALFORMED_FRAME, f"the server's answer to kv.transact does not fit: {error}"
            ) from error
        return TransactResult(answer.succeeded, answer.version, results)

    @staticmethod
    def compare(key: str, field: str, operator: str, operand: Any) -> Compare:
        """A compare as it is encoded. Raises as `argument` does."""
        match field:
            case "version":
                operand = checked_int("a version", operand, 0, VERSION_MAX)
            case "value":
                operand = bytes(plain_value(operand))
            case "exists":
                operand = bool(operand)
            case "lease":
                operand = checked_int("a lease", operand, 0, VERSION_MAX)
            case _:
                raise ValueError(f"a compare is of version, value, exists or lease, not {field!r}")
        if not isinstance(operator, str) or operator not in {"=", "!=", "<", ">"}:
            raise ValueError(f"a compare is by =, !=, < or >, not {operator!r}")
        return plain_key(key), field, operator, operand

    def operation(self, name: str, arguments: Sequence[Any]) -> Operation:
        """An operation as it is encoded. Raises as `argument` does."""
        if not isinstance(name, str) or name not in self._methods:
            raise ValueError(f"an operation of a transact is one of {', '.join(self._methods)}, not {name!r}")
        if isinstance(arguments, str | bytes):
            raise TypeError(f"the arguments of {name} are in a list, not {type(arguments).__name__}")
        first, *rest = arguments or ("",)
        if name == "set" and rest:
            rest[0] = bytes(plain_value(rest[0]))
        elif rest and name != "expire" and not isinstance(rest[0], int | dict):  # the other key of a rename
            rest[0] = plain_key(rest[0])
        options = rest[-1] if rest and isinstance(rest[-1], dict) else {}
        for number in (*rest, *options.values()):
            if isinstance(number, int) and not isinstance(number, bool):  # a larger one cannot be encoded
                checked_int(f"a number of {name}", number, INT64_MIN, INT64_MAX)
        return name, [plain_key(first), *rest]


def _converted(arguments: list[Any], result: Any) -> OperationResult:
    """What an operation gives, of the shape of its method's answer."""
    with_previous = isinstance(arguments[-1], dict) and arguments[-1].get("return_previous")
    match result:
        case Found() | Taken():
            return entry_of(arguments[0], result.value, result.version, result.expires_at_ms)
        case Existing():
            return result.exists
        case Stored():
            return _entry(arguments[0], result.previous) if with_previous else result.version
        case Deleted():
            return _entry(arguments[0], result.previous) if with_previous else result.deleted
        case Incremented():
            return result.value
        case Written():
            return result.version
        case TimeLeft():
            return None if result.ttl_ms is None else result.ttl_ms / 1000
        case _:
            raise AssertionError(result)


def _entry(key: str, found: Found | None) -> Entry | None:
    return None if found is None else entry_of(key, found.value, found.version, found.expires_at_ms)
