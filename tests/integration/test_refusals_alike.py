"""Trap: served and embedded store that differ.

Every call of a database, with every kind of argument that it refuses, on both kinds of store: the error has the same
class, code, outcome and details, and its details are those of spec/errors.toml.
"""

from __future__ import annotations

import tomllib
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import haptera
from haptera import Database
from haptera.errors import MemoryFull
from haptera.testing import node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

MIB = 1024 * 1024
TOO_MANY = 2**17 + 1
ERRORS = {
    error["code"]: error
    for error in tomllib.loads((Path(__file__).parents[2] / "spec/errors.toml").read_text())["error"]
}

KEYS: dict[str, Any] = {
    "int": 5,
    "none": None,
    "bytes": b"k",
    "empty": "",
    "too long": "k" * 4097,
    "too long in bytes": "é" * 2049,
    "NUL": "a\0b",
    "lone surrogate": "a\ud800b",
    "long and a lone surrogate": "\ud800" * 4097,
    "20 MiB": "k" * (20 * MIB),
}
VALUES: dict[str, Any] = {
    "int": 5,
    "none": None,
    "lone surrogate": "\ud800",
    "list": [b"v"],
    "8 MiB and a byte": bytes(8 * MIB + 1),
    "20 MiB": bytes(20 * MIB),
    "20 MiB of another type": bytearray(20 * MIB),
}
ITEMS: dict[str, Any] = {
    "int": 5,
    "none": None,
    "text": "ab",
    "not pairs": [("k",)],
    "bad value": {"k": 5},
    "empty key": {"": b""},
    "second key": [("k", b""), ("a\0b", b"")],
    "lone surrogate": [("k", b""), ("m", b""), ("\ud800", b"")],
    "long key": {"k" * 4097: b""},
    "large value": {"k": bytes(8 * MIB + 1)},
    "too many": [("k", b"")] * TOO_MANY,
    "20 MiB": {f"k{number}": bytes(MIB) for number in range(20)},
    "20 MiB in one value": {"k": bytes(20 * MIB)},
    "20 MiB in one key": {"k" * (20 * MIB): b""},
    "too many, and too large": [("k", bytes(200))] * TOO_MANY,
}
MANY_KEYS: dict[str, Any] = {
    "int": 5,
    "none": None,
    "text": "ab",
    "bytes": b"ab",
    "a number": ["k", 5],
    "empty key": ["k", ""],
    "NUL": ["k", "m", "a\0b"],
    "lone surrogate": ["k", "\ud800"],
    "long key": ["k" * 4097],
    "too many": ["k"] * TOO_MANY,
    "20 MiB": ["k" * 4096] * 5120,
    "20 MiB in one key": ["k" * (20 * MIB)],
}
VERSIONS: dict[str, Any] = {"negative": -1, "too large": 2**53, "bool": True, "text": "1", "float": 1.5}
NUMBERS: dict[str, Any] = {"above": 2**63, "below": -(2**63) - 1, "bool": True, "text": "1", "float": 1.5, "none": None}
BOUNDS: dict[str, Any] = {
    "int": 5,
    "bytes": b"k",
    "too long": "k" * 4097,
    "too long in bytes": "é" * 2049,
    "lone surrogate": "\ud800",
    "above the size of options": "k" * 70_000,
    "20 MiB": "k" * (20 * MIB),
}
GLOBS: dict[str, Any] = {
    **BOUNDS,
    "open class": "[a",
    "empty class": "[]",
    "backwards": "[b-a]",
    "backslash": "a\\",
    "stars": "*a" * 65,
}
TIMEOUTS: dict[str, Any] = {"0": 0, "negative": -1.0, "nan": float("nan"), "text": "5", "bool": True}


async def _scan(db: Database, **options: Any) -> int:
    return len([entry async for entry in db.scan(**options)])


OPERATIONS: dict[str, Any] = {
    "int": 5,
    "text": "ab",
    "no arguments": [("get", [])],
    "many keys": [("clear", [])],
    "unknown option": [("set", ["k", b"v", {"no": 1}])],
    "wrong option": [("set", ["k", b"v", {"if_version": -1}])],
    "too many": [("get", ["k"])] * 129,
    "20 MiB": [("set", ["k", bytes(7 * MIB)])] * 3,
}

#: What is called, and with which arguments. Each case is done on both stores.
CALLS: dict[str, tuple[Any, dict[str, Any]]] = {
    "get": (lambda db, key: db.get(key), KEYS),
    "set": (lambda db, key: db.set(key, b"v"), KEYS),
    "set value": (lambda db, value: db.set("k", value), VALUES),
    "set if_version": (lambda db, version: db.set("k", b"v", if_version=version), VERSIONS),
    "get_and_set": (lambda db, key: db.get_and_set(key, b"v"), KEYS),
    "get_and_set value": (lambda db, value: db.get_and_set("k", value), VALUES),
    "delete": (lambda db, key: db.delete(key), KEYS),
    "delete if_version": (lambda db, version: db.delete("k", if_version=version), VERSIONS),
    "increment": (lambda db, key: db.increment(key), KEYS),
    "increment delta": (lambda db, delta: db.increment("n", delta), NUMBERS),
    "increment initial": (lambda db, initial: db.increment("new", initial=initial), NUMBERS),
    "rename": (lambda db, key: db.rename(key, "new"), KEYS),
    "rename to": (lambda db, key: db.rename("k", key), KEYS),
    "exists": (lambda db, key: db.exists(key), KEYS),
    "transact compare": (
        lambda db, key: db.transact(compare=[("k", "exists", "=", True), (key, "exists", "=", True)]),
        KEYS,
    ),
    "transact operand": (lambda db, value: db.transact(compare=[("k", "value", "=", value)]), VALUES),
    "transact key": (lambda db, key: db.transact(then=[("get", ["k"]), ("set", [key, b"v"])]), KEYS),
    "transact value": (lambda db, value: db.transact(otherwise=[("set", ["k", value])]), VALUES),
    "transact new key": (lambda db, key: db.transact(then=[("rename", ["k", key])]), KEYS),
    "transact method": (lambda db, parts: db.transact(then=parts), OPERATIONS),
    "get_many": (lambda db, keys: db.get_many(keys), MANY_KEYS),
    "set_many": (lambda db, items: db.set_many(items), ITEMS),
    "delete_many": (lambda db, keys: db.delete_many(keys), MANY_KEYS),
    "count prefix": (lambda db, text: db.count(prefix=text), BOUNDS),
    "count start": (lambda db, text: db.count(start=text), BOUNDS),
    "count end": (lambda db, text: db.count(end=text), BOUNDS),
    "count glob": (lambda db, text: db.count(glob=text), GLOBS),
    "scan prefix": (lambda db, text: _scan(db, prefix=text), BOUNDS),
    "scan start": (lambda db, text: _scan(db, start=text), BOUNDS),
    "scan end": (lambda db, text: _scan(db, end=text), BOUNDS),
    "scan glob": (lambda db, text: _scan(db, glob=text), GLOBS),
    "scan limit": (lambda db, number: _scan(db, limit=number), VERSIONS),
    "clear": (lambda db, text: db.clear(prefix=text), {**BOUNDS, "none": None}),
    "timeout of a read": (lambda db, timeout: db.get("k", timeout=timeout), TIMEOUTS),
    "timeout of a change": (lambda db, timeout: db.set("k", b"v", timeout=timeout), TIMEOUTS),
    "timeout of a scan": (lambda db, timeout: _scan(db, timeout=timeout), TIMEOUTS),
    "timeout of status": (lambda db, timeout: db.status(timeout=timeout), TIMEOUTS),
}
#: What the store refuses for what it holds: "k" with version 1 and "n" with the largest number.
CONDITIONS: dict[str, Any] = {
    "version": lambda db: db.set("k", b"v", if_version=7),
    "version of a missing key": lambda db: db.set("none", b"v", if_version=7),
    "absent": lambda db: db.set("k", b"v", if_absent=True),
    "present": lambda db: db.set("none", b"v", if_present=True),
    "both": lambda db: db.set("k", b"v", if_absent=True, if_present=True),
    "deleted version": lambda db: db.delete("k", if_version=7),
    "rename what is missing": lambda db: db.rename("none", "new"),
    "rename to what is there": lambda db: db.rename("k", "n", if_absent=True),
    "not an integer": lambda db: db.increment("k"),
    "overflow": lambda db: db.increment("n"),
    "a condition inside a transact": lambda db: db.transact(then=[("set", ["k", b"v", {"if": "absent"}])]),
    "a missing key inside a transact": lambda db: db.transact(then=[("rename", ["none", "new"])]),
}
EVERY_CALL: dict[str, Any] = {
    "get": lambda db: db.get("k"),
    "set": lambda db: db.set("k", b"v"),
    "get_and_set": lambda db: db.get_and_set("k", b"v"),
    "delete": lambda db: db.delete("k"),
    "increment": lambda db: db.increment("n"),
    "rename": lambda db: db.rename("k", "new"),
    "transact": lambda db: db.transact(then=[("get", ["k"])]),
    "transaction": lambda db: db.run(lambda tx: tx.get("k")),
    "exists": lambda db: db.exists("k"),
    "get_many": lambda db: db.get_many(["k"]),
    "set_many": lambda db: db.set_many({"k": b"v"}),
    "delete_many": lambda db: db.delete_many(["k"]),
    "count": lambda db: db.count(),
    "count of a glob": lambda db: db.count(glob="*k*"),
    "clear": lambda db: db.clear(prefix=""),
    "scan": _scan,
    "status": lambda db: db.status(),
    "set of no text": lambda db: db.set("\ud800", b"v"),
}


#: What a store refuses whose memory is used up; "k" and "n" are in it.
GROWING: dict[str, Any] = {
    "set": lambda db: db.set("new", b"v"),
    "set with a longer value": lambda db: db.set("k", bytes(1000)),
    "get_and_set": lambda db: db.get_and_set("new", b"v"),
    "increment": lambda db: db.increment("new"),
    "rename to a longer key": lambda db: db.rename("k", "k" * 1000),
    "transact": lambda db: db.transact(then=[("delete", ["n"]), ("set", ["new", bytes(1000)])]),
    "set_many": lambda db: db.set_many({"k": b"w", "new": b"v"}),
    "a long set_many": lambda db: db.set_many({f"new/{number}": b"v" for number in range(20_000)}),
}
#: What it does all the same, in this order.
FREEING: dict[str, Any] = {
    "set": lambda db: db.set("k", b"w"),
    "set of a shorter value": lambda db: db.set("n", b"1"),
    "increment": lambda db: db.increment("n"),
    "transact": lambda db: db.transact(then=[("set", ["k", b"0"]), ("increment", ["n", 1])]),
    "set_many": lambda db: db.set_many({"k": b"1", "n": b"2"}),
    "a long set_many": lambda db: db.set_many([("k", b"3"), ("n", b"4")] * 10_000),
    "rename": lambda db: db.rename("k", "l"),
    "delete_many": lambda db: db.delete_many(["l"]),
    "delete": lambda db: db.delete("n"),
    "clear": lambda db: db.clear(prefix=""),
}


#: Bytes of memory that a bounded store has for its two keys, one entry more, and little beyond.
ROOM = 600 + 234


@asynccontextmanager
async def both(path: Path, memory_max: int = 0) -> AsyncIterator[tuple[Database, Database]]:
    """A served and an embedded store with the same content. With a bound of the memory nearly all of it is taken."""
    async with (
        node(storage="memory", listen="tcp", memory_max=memory_max) as url,
        haptera.connect(url) as served,
        haptera.open(path / "data", durability="os", memory_max=memory_max) as embedded,
    ):
        for db in (served, embedded):
            await db.set("k", b"v")
            await db.set("n", str(2**63 - 1))
            if memory_max:
                await db.set("filler", bytes(memory_max - ROOM))
        yield served, embedded


async def told(call: Any) -> tuple[object, ...]:
    """What a caller is told: the error as far as a program can tell it from another, or the result."""
    try:
        result = await call()
    except haptera.ConnectionLost as error:
        return type(error), error.outcome
    except haptera.errors.ServerError as error:
        known = error.outcome == "not_applied" and set(error.details) <= set(ERRORS[error.code]["details"])
        return type(error), error.code, error.outcome if known else "neither known nor documented", error.details
    except (TypeError, ValueError) as error:
        return type(error), str(error)
    return "no error", result


async def differences(cases: Iterable[tuple[str, Any]], served: Database, embedded: Database) -> dict[str, object]:
    """The cases in which the two are not told the same, and those that are no refusal."""
    found: dict[str, object] = {}
    for name, call in cases:
        answers = await told(lambda call=call: call(served)), await told(lambda call=call: call(embedded))
        if answers[0] != answers[1] or answers[0][0] == "no error" or "neither known nor documented" in answers[0]:
            found[name] = [str(answer)[:300] for answer in answers]
    return found


@pytest.mark.parametrize("name", CALLS)
async def test_an_argument_is_refused_with_the_same_error(name: str, tmp_path: Path) -> None:
    call, arguments = CALLS[name]
    async with both(tmp_path) as (served, embedded):
        cases = [(kind, lambda db, argument=argument: call(db, argument)) for kind, argument in arguments.items()]
        assert await differences(cases, served, embedded) == {}
        for db in (served, embedded):
            assert [(entry.key, entry.version) async for entry in db.scan()] == [("k", 1), ("n", 2)]
            assert (await db.status())["revision"] == 2, "what was refused has changed nothing"


async def test_a_condition_is_refused_with_the_same_error(tmp_path: Path) -> None:
    async with both(tmp_path) as (served, embedded):
        assert await differences(CONDITIONS.items(), served, embedded) == {}


async def test_an_answer_that_is_too_large_is_refused_with_the_same_error(tmp_path: Path) -> None:
    async with both(tmp_path) as (served, embedded):
        for db in (served, embedded):
            await db.set("k", bytes(6 * MIB))
        assert await differences([("18 MiB", lambda db: db.get_many(["k"] * 3))], served, embedded) == {}
        answers = [await told(lambda db=db: db.get_many(["k"] * 2)) for db in (served, embedded)]
        assert [answer[0] for answer in answers] == ["no error"] * 2


async def test_a_full_memory_is_refused_with_the_same_error_and_lets_the_same_changes_pass(tmp_path: Path) -> None:
    async with both(tmp_path, memory_max=MIB) as (served, embedded):
        assert await differences(GROWING.items(), served, embedded) == {}
        for call in GROWING.values():
            assert await told(lambda call=call: call(served)) == (MemoryFull, 5007, "not_applied", {"limit": MIB})
        for name, call in FREEING.items():
            answers = [await told(lambda db=db, call=call: call(db)) for db in (served, embedded)]
            assert answers[0] == answers[1], name
            assert answers[0][0] == "no error", (name, answers)
        for db in (served, embedded):
            await db.set("new", b"v")
            status = await db.status()
            assert (status["keys"], status["memory_max"]) == (1, MIB)
            assert 0 < status["memory"] < 300


@pytest.mark.parametrize("end", [Database.aclose, Database.drain])
async def test_a_closed_database_refuses_every_call_with_the_same_error(end: Any, tmp_path: Path) -> None:
    async with both(tmp_path) as (served, embedded):
        await end(served)
        await end(embedded)
        assert await differences(EVERY_CALL.items(), served, embedded) == {}
        assert await told(lambda: embedded.get("k")) == (haptera.ConnectionLost, "not_applied")


async def test_a_server_that_takes_less_refuses_with_the_same_classes(tmp_path: Path) -> None:
    """An error of this side's protocol is none that a user of a database knows."""
    async with node(storage="memory", listen="tcp", max_message=MIB) as url, haptera.connect(url) as db:
        for _ in range(2):  # the first is sent behind HELLO, before the limit is known
            with pytest.raises(haptera.errors.MessageTooLarge) as refused:
                await db.set("k", bytes(2 * MIB))
            assert (refused.value.outcome, refused.value.details) == ("not_applied", {"limit": MIB})
        with pytest.raises(haptera.errors.ValueTooLarge):
            await db.set("k", bytes(9 * MIB))
        with pytest.raises(haptera.errors.InvalidKey):
            await db.get("k" * (2 * MIB))
        with pytest.raises(haptera.errors.MessageTooLarge):
            await db.set_many({f"k{number}": bytes(MIB // 2) for number in range(3)})
        assert await db.count() == 0


async def test_a_refused_connection_is_told_by_the_name_of_its_error() -> None:
    """Trap: an error class outside the documented tree: a name that can be caught, and that nothing raises."""
    async with node(storage="memory", listen="tcp", max_connections=1) as url, haptera.connect(url) as first:
        assert await first.get("k") is None
        async with haptera.connect(url, timeout=0.2) as second:
            with pytest.raises(haptera.errors.TooManyConnections) as refused:
                await second.set("k", b"v")
            assert refused.value.outcome == "not_applied"
            with pytest.raises(haptera.ConnectionLost):
                await second.get("k")


async def test_a_data_directory_that_cannot_be_opened_is_told_by_name(tmp_path: Path) -> None:
    """Trap: an error class outside the documented tree."""
    async with haptera.open(tmp_path / "data", durability="os") as db:
        await db.set("k", b"v")
        with pytest.raises(haptera.errors.DirectoryInUse, match="in use by this process"):
            async with haptera.open(tmp_path / "data"):
                pass
    for key in (tmp_path / "data").rglob("*key*"):
        if key.is_file():
            key.unlink()
    with pytest.raises(haptera.errors.MissingKey):
        async with haptera.open(tmp_path / "data"):
            pass
