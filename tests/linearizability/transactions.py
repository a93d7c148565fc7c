"""Transacts of a workload, and how the checker reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from tests.linearizability.history import Told, row

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from haptera import Database, Entry

    Ask = Callable[[], Awaitable[Told]]


class Transactions:
    """A part of a workload. ``written`` numbers the values, and ``seen`` has versions that compares are made of."""

    def __init__(
        self, choices: random.Random, key: Callable[[], str], written: Iterator[int], seen: Mapping[str, int]
    ) -> None:
        self._choices = choices
        self._key = key
        self._written = written
        self._seen = seen

    def transact(self, db: Database, timeout: float) -> tuple[dict[str, Any], Ask]:
        """A transact of some compares and two lists of operations."""
        compares = [self._compare() for _ in range(self._choices.choice((0, 1, 1, 2)))]
        then, otherwise = ([self._part() for _ in range(self._choices.randint(0, 3))] for _ in range(2))
        argument = {"compares": compares, "then": then, "otherwise": otherwise}

        async def ask() -> Told:
            result = await db.transact(
                compare=[_compare_of(each) for each in compares],
                then=[_operation_of(each) for each in then],
                otherwise=[_operation_of(each) for each in otherwise],
                timeout=timeout,
            )
            made = then if result.succeeded else otherwise
            rows = [
                row(each["key"], cast("Entry | None", found))
                for each, found in zip(made, result.results, strict=True)
                if each["method"] == "get"
            ]
            changed = result.version is not None
            revision = result.version if changed else db.revision
            return Told(rows=rows, number=int(result.succeeded), revision=revision, loose=not changed)

        return argument, ask

    def _compare(self) -> dict[str, Any]:
        key = self._key()
        match self._choices.random():
            case chance if chance < 0.5:
                operator = self._choices.choice(("=", "=", "!=", "<", ">"))
                return {"key": key, "field": "version", "operator": operator, "number": self._seen.get(key, 0)}
            case chance if chance < 0.8:
                return {"key": key, "field": "exists", "operator": "=", "number": self._choices.randint(0, 1)}
            case _:
                return {"key": key, "field": "value", "operator": self._choices.choice("<>"), "value": "v"}

    def _part(self) -> dict[str, Any]:
        """An operation as the checker reads it."""
        key = self._key()
        match self._choices.choice(("get", "get", "set", "set", "set", "delete", "increment", "rename")):
            case "set":
                condition = {"if": self._choices.choice(("absent", "present"))} if self._choices.random() < 0.2 else {}
                return {"method": "set", "key": key, "value": f"v{next(self._written)}", **condition}
            case "increment":
                return {"method": "increment", "key": self._choices.choice(("n", "n/1")), "delta": 1}
            case "rename":
                return {"method": "rename", "key": key, "new_key": self._key()}
            case method:
                return {"method": method, "key": key}


def _compare_of(compare: dict[str, Any]) -> tuple[str, str, str, Any]:
    """The argument of `Database.transact` that a recorded compare is of."""
    operand = compare["value"] if compare["field"] == "value" else compare["number"]
    return compare["key"], compare["field"], compare["operator"], operand


def _operation_of(part: dict[str, Any]) -> tuple[str, list[Any]]:
    """The argument of `Database.transact` that a recorded operation is of."""
    others = [part[name] for name in ("value", "delta", "new_key") if name in part]
    options = [{"if": part["if"]}] if "if" in part else []
    return part["method"], [part["key"], *others, *options]
