"""The checker takes what a right store may answer, and nothing else: histories written by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.linearizability.porcupine import Checker

pytestmark = pytest.mark.long


def asked(
    call: int, end: int | None, method: str, told: dict[str, Any] | None = None, **argument: Any
) -> dict[str, Any]:
    outcome = argument.pop("outcome", "ok" if end is not None else "unknown")
    return {"call": call, "return": end, "method": method, "told": told or {}, "outcome": outcome, **argument}


def incremented(call: int, end: int | None, number: int, revision: int, **argument: Any) -> dict[str, Any]:
    return asked(call, end, "increment", {"number": number, "revision": revision}, key="n", delta=1, **argument)


def stored(call: int, end: int, value: str, revision: int) -> dict[str, Any]:
    return asked(call, end, "set", {"revision": revision}, key="k", value=value)


def found(key: str, value: str, version: int) -> dict[str, Any]:
    return {"key": key, "value": value, "version": version}


def scanned(call: int, revision: int, *rows: dict[str, Any]) -> dict[str, Any]:
    return asked(call, call + 1, "scan", {"revision": revision, "number": len(rows), "rows": rows})


LOST_ANSWER = asked(1, None, "increment", key="n", delta=1)

#: An operation of a transact that fails where there is no such key.
GONE = {"method": "rename", "key": "none", "new_key": "k"}


def transacted(
    call: int, end: int, succeeded: int, revision: int, *rows: dict[str, Any], loose: bool = False
) -> dict[str, Any]:
    told = {"number": succeeded, "revision": revision, "rows": rows, "loose": loose}
    increment = {"method": "increment", "key": "n", "delta": 1}
    then = [{"method": "set", "key": "k", "value": "w"}, increment, {"method": "get", "key": "n"}]
    compares = [{"key": "k", "field": "version", "operator": "=", "number": 1}]
    return asked(call, end, "transact", told, compares=compares, then=then, otherwise=[{"method": "get", "key": "k"}])


def mortal(call: int, end: int, value: str, revision: int, **argument: Any) -> dict[str, Any]:
    """A set with a time to live."""
    return asked(call, end, "set", {"revision": revision}, key="k", value=value, ttl_ms=5, **argument)


def dies(key: str, version: int) -> dict[str, Any]:
    """The time of an entry may be over at any place."""
    return asked(0, None, "die", key=key, version=version)


def ends(revision: int, *keys: str) -> dict[str, Any]:
    """The log says that keys have ended."""
    return asked(0, 99, "end", {"revision": revision}, keys=keys)


def granted(call: int, end: int, revision: int) -> dict[str, Any]:
    return asked(call, end, "grant_lease", {"revision": revision})


def attached(call: int, end: int, key: str, revision: int, lease: int = 1) -> dict[str, Any]:
    return asked(call, end, "set", {"revision": revision}, key=key, value="v", lease=lease)


def missing(call: int, end: int, key: str) -> dict[str, Any]:
    return asked(call, end, "get", {"rows": [{"key": key, "missing": True}]}, key=key)


def fenced_set(call: int, end: int, told: dict[str, Any], fence: int) -> dict[str, Any]:
    return asked(call, end, "set", told, key="f", value="w", fence=fence)


RIGHT = {
    "changes that overlap take effect in either order": [
        incremented(1, 4, 2, 2),
        incremented(2, 3, 1, 1),
        scanned(5, 2, found("n", "2", 2)),
    ],
    "a change without an answer was applied": [LOST_ANSWER, scanned(2, 1, found("n", "1", 1))],
    "a change without an answer was not applied": [LOST_ANSWER, scanned(2, 0)],
    "a change without an answer is applied late": [
        LOST_ANSWER,
        scanned(2, 0),
        stored(4, 5, "v", 1),
        scanned(6, 2, found("k", "v", 1), found("n", "1", 2)),
    ],
    "a repeated request has one effect and one answer": [
        incremented(1, 2, 1, 1, id="r"),
        stored(3, 4, "v", 2),
        incremented(5, 6, 1, 1, id="r"),
        asked(7, None, "increment", key="n", delta=1, id="r"),
        scanned(8, 2, found("k", "v", 2), found("n", "1", 1)),
    ],
    "an answer that was not kept": [
        asked(1, 2, "increment", {"revision": 1}, key="n", delta=1, outcome="applied"),
        scanned(3, 1, found("n", "1", 1)),
    ],
    "a condition that failed": [
        stored(1, 2, "v", 1),
        asked(3, 4, "set", {"code": 4002, "actual": 1}, key="k", value="w", if_version=7),
        scanned(5, 1, found("k", "v", 1)),
    ],
    "a transact whose operations see each other": [
        stored(1, 2, "v", 1),
        transacted(3, 4, 1, 2, found("n", "1", 2)),
        scanned(5, 2, found("k", "w", 2), found("n", "1", 2)),
    ],
    "a transact whose compare does not hold": [
        stored(1, 2, "x", 1),
        stored(3, 4, "v", 2),
        transacted(5, 6, 0, 2, found("k", "v", 2), loose=True),
        scanned(7, 2, found("k", "v", 2)),
    ],
    "a transact that failed": [
        stored(1, 2, "v", 1),
        asked(3, 4, "transact", {"code": 4001}, then=[{"method": "set", "key": "k", "value": "w"}, GONE]),
        scanned(5, 1, found("k", "v", 1)),
    ],
    "a key is absent before it ends": [
        mortal(1, 2, "v", 1),
        dies("k", 1),
        missing(3, 4, "k"),
        scanned(5, 1),
        ends(2, "k"),
        scanned(7, 2),
    ],
    "a key ends before another takes its place": [
        mortal(1, 2, "v", 1),
        dies("k", 1),
        asked(3, 4, "set", {"revision": 3}, key="k", value="w", **{"if": "absent"}),
        ends(2, "k"),
        scanned(5, 3, found("k", "w", 3)),
    ],
    "an increment keeps the time of its key": [
        asked(1, 2, "set", {"revision": 1}, key="n", value="1", ttl_ms=5),
        dies("n", 1),
        incremented(3, 4, 2, 2),
        dies("n", 2),
        ends(3, "n"),
        scanned(5, 3),
    ],
    "a transact that failed in the place of a dead key": [
        mortal(1, 2, "v", 1),
        dies("k", 1),
        missing(3, 4, "k"),
        asked(5, 6, "transact", {"code": 4001}, then=[{"method": "set", "key": "k", "value": "w"}, GONE]),
        ends(2, "k"),
        scanned(7, 2),
    ],
    "a lease ends with its keys": [
        granted(1, 2, 1),
        attached(3, 4, "a", 2),
        attached(5, 6, "b", 3),
        fenced_set(7, 8, {"revision": 4}, 2),
        ends(5, "a", "b"),
        fenced_set(9, 10, {"code": 4011}, 2),
        asked(11, 12, "set", {"code": 4010}, key="a", value="w", lease=1),
        scanned(13, 5, found("f", "w", 4)),
    ],
    "a lease without keys ends unseen": [
        granted(1, 2, 1),
        asked(3, 4, "set", {"code": 4010}, key="a", value="w", lease=1),
        scanned(5, 1),
    ],
    "a delete of nothing": [
        asked(1, 4, "delete", {"number": 0, "revision": 1, "loose": True}, key="n"),
        stored(2, 3, "v", 1),
        scanned(5, 1, found("k", "v", 1)),
    ],
}

WRONG = {
    "an increment that was applied twice": [
        incremented(1, 2, 1, 1),
        scanned(3, 2, found("n", "2", 2)),
    ],
    "an increment that was applied twice and answered with the second": [
        incremented(1, 2, 2, 2),
        scanned(3, 2, found("n", "2", 2)),
    ],
    "a change without an answer that was applied twice": [LOST_ANSWER, scanned(2, 2, found("n", "2", 2))],
    "a change that overwrites a newer one when it is repeated": [
        stored(1, 6, "old", 1),
        stored(2, 3, "new", 2),
        asked(4, 5, "get", {"revision": 2, "rows": [found("k", "new", 2)]}, key="k"),
        scanned(7, 3, found("k", "old", 3)),
    ],
    "a stale read": [
        stored(1, 2, "old", 1),
        stored(3, 4, "new", 2),
        asked(5, 6, "get", {"revision": 1, "rows": [found("k", "old", 1)]}, key="k"),
        scanned(7, 2, found("k", "new", 2)),
    ],
    "an acknowledged change that is lost": [stored(1, 2, "v", 1), scanned(3, 0)],
    "a key that lives again": [
        mortal(1, 2, "v", 1),
        dies("k", 1),
        missing(3, 4, "k"),
        asked(5, 6, "get", {"revision": 1, "rows": [found("k", "v", 1)]}, key="k"),
        ends(2, "k"),
        scanned(7, 2),
    ],
    "a key in the place of a dead one that has not ended": [
        mortal(1, 2, "v", 1),
        dies("k", 1),
        asked(3, 4, "set", {"revision": 2}, key="k", value="w", **{"if": "absent"}),
        scanned(5, 2, found("k", "w", 2)),
    ],
    "a key ends that has no time to live": [stored(1, 2, "v", 1), ends(2, "k"), scanned(3, 2)],
    "a key ends that does not expire any more": [
        mortal(1, 2, "v", 1),
        dies("k", 1),
        asked(3, 4, "expire", {"revision": 2}, key="k"),
        ends(3, "k"),
        scanned(5, 3),
    ],
    "a lease leaves a key": [
        granted(1, 2, 1),
        attached(3, 4, "a", 2),
        attached(5, 6, "b", 3),
        ends(4, "a"),
        scanned(7, 4, found("b", "v", 3)),
    ],
    "a lease takes a key that has left it": [
        granted(1, 2, 1),
        attached(3, 4, "a", 2),
        attached(5, 6, "k", 3),
        stored(7, 8, "w", 4),
        ends(5, "a", "k"),
        scanned(9, 5),
    ],
    "a key comes to a lease that is over": [
        granted(1, 2, 1),
        attached(3, 4, "a", 2),
        ends(3, "a"),
        attached(5, 6, "b", 4),
        scanned(7, 4, found("b", "v", 4)),
    ],
    "a lease that is not found although it has a key": [
        granted(1, 2, 1),
        attached(3, 4, "a", 2),
        asked(5, 6, "set", {"code": 4010}, key="b", value="w", lease=1),
        scanned(7, 2, found("a", "v", 2)),
    ],
    "a change behind a fence that does not stand": [
        granted(1, 2, 1),
        attached(3, 4, "a", 2),
        attached(5, 6, "a", 3),
        fenced_set(7, 8, {"revision": 4}, 2),
        scanned(9, 4, found("a", "v", 3), found("f", "w", 4)),
    ],
    "a fence that stands is refused": [
        granted(1, 2, 1),
        attached(3, 4, "a", 2),
        fenced_set(5, 6, {"code": 4011}, 2),
        scanned(7, 2, found("a", "v", 2)),
    ],
    "a version that is used twice": [
        stored(1, 2, "v", 1),
        asked(3, 4, "delete", {"number": 1, "revision": 2, "loose": True}, key="k"),
        stored(5, 6, "w", 1),
        scanned(7, 2, found("k", "w", 1)),
    ],
    "half of a change of many keys": [
        asked(1, 2, "set_many", {"revision": 1}, items=[["a", "1"], ["b", "1"]]),
        scanned(3, 1, found("a", "1", 1)),
    ],
    "half of a transact": [
        stored(1, 2, "v", 1),
        transacted(3, 4, 1, 2, found("n", "1", 2)),
        scanned(5, 2, found("k", "v", 1), found("n", "1", 2)),
    ],
    "a transact of two revisions": [
        stored(1, 2, "v", 1),
        transacted(3, 4, 1, 3, found("n", "1", 3)),
        scanned(5, 3, found("k", "w", 2), found("n", "1", 3)),
    ],
    "a transact that was made although its compare did not hold": [
        stored(1, 2, "v", 1),
        stored(3, 4, "x", 2),
        transacted(5, 6, 1, 3, found("n", "1", 3)),
        scanned(7, 3, found("k", "w", 3), found("n", "1", 3)),
    ],
    "a transact that failed and left a change": [
        stored(1, 2, "v", 1),
        asked(3, 4, "transact", {"code": 4001}, then=[{"method": "set", "key": "k", "value": "w"}, GONE]),
        scanned(5, 2, found("k", "w", 2)),
    ],
    "a transact with a stale read": [
        stored(1, 2, "v", 1),
        stored(3, 4, "x", 2),
        transacted(5, 6, 0, 2, found("k", "v", 1), loose=True),
        scanned(7, 2, found("k", "x", 2)),
    ],
    "a scan of two revisions": [
        stored(1, 2, "v", 1),
        asked(3, 6, "scan", {"revision": 2, "number": 1, "rows": [found("k", "v", 1)]}),
        asked(4, 5, "delete", {"number": 1, "revision": 2, "loose": True}, key="k"),
        scanned(7, 2),
    ],
    "a condition that failed although it holds": [
        stored(1, 2, "v", 1),
        asked(3, 4, "set", {"code": 4002, "actual": 1}, key="k", value="w", if_version=1),
        scanned(5, 1, found("k", "v", 1)),
    ],
    "two owners of one lock": [
        asked(1, 2, "set", {"revision": 1}, key="k", value="a", **{"if": "absent"}),
        asked(3, 4, "set", {"revision": 2}, key="k", value="b", **{"if": "absent"}),
        scanned(5, 2, found("k", "b", 2)),
    ],
    "a repeated request with another answer": [
        incremented(1, 2, 1, 1, id="r"),
        stored(3, 4, "v", 2),
        incremented(5, 6, 1, 2, id="r"),
        scanned(7, 2, found("k", "v", 2), found("n", "1", 1)),
    ],
    "a change that takes effect before it is asked for": [
        scanned(1, 1, found("k", "v", 1)),
        stored(3, 4, "v", 1),
        scanned(5, 1, found("k", "v", 1)),
    ],
}


def verdict(checker: Checker, path: Path, history: list[dict[str, Any]]) -> tuple[str, str]:
    file = path / "history.jsonl"
    file.write_bytes(b"\n".join(msgspec.json.encode({"client": at, **op}) for at, op in enumerate(history)))
    verdicts, text = checker.check([file])
    return verdicts[0], text


@pytest.mark.parametrize("name", RIGHT)
def test_a_history_of_a_right_store_is_taken(checker: Checker, tmp_path: Path, name: str) -> None:
    assert verdict(checker, tmp_path, RIGHT[name])[0] == "Ok"


@pytest.mark.parametrize("name", WRONG)
def test_a_history_of_a_wrong_store_is_refused(checker: Checker, tmp_path: Path, name: str) -> None:
    found, text = verdict(checker, tmp_path, WRONG[name])
    assert found == "Illegal"
    assert "not placed:" in text
    assert (tmp_path / "history.jsonl.html").exists()
