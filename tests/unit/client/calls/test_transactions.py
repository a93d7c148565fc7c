"""Transactions of the client, on a served and on an embedded store: typed results, conflicts, repetition, isolation."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, cast

import pytest

import haptera
from haptera import Database, Entry, Transaction, TransactionConflict, TransactResult
from haptera.client.calls import transaction
from haptera.client.calls.key_calls import KvMethods
from haptera.client.calls.methods import Transacted
from haptera.client.calls.transaction_calls import transact_form
from haptera.errors import ConnectionLost, RemoteProtocolError, TransactionTooLarge, UnknownMethod
from haptera.peer.backoff import Backoff
from haptera.testing import node, virtual_clock
from tests.support.stores import opened
from tests.unit.client.doubles import SERVER, Dialler, FakePeer, Sent, channel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


@pytest.fixture(params=["served", "embedded"])
async def db(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(request.param, tmp_path) as database:
        yield database


async def test_the_results_of_a_transact_are_those_of_the_calls(db: Database) -> None:
    await db.set_many({"a": "1", "b": "x"})
    result = await db.transact(
        compare=[
            ("a", "version", "=", 1),
            ("a", "value", "=", "1"),
            ("b", "exists", "=", True),
            ("b", "value", ">", b"a"),
        ],
        then=[
            ("get", ["a"]),
            ("get", ["no"]),
            ("exists", ["b"]),
            ("set", ["c", "2"]),
            ("set", ["a", bytearray(b"5"), {"return_previous": True}]),
            ("set", ["new", memoryview(b"6"), {"return_previous": True, "if": "absent"}]),
            ("increment", ["a", 2]),
            ("increment", ["n", 1, {"initial": 10}]),
            ("rename", ["a", "d"]),
            ("delete", ["b", {"return_previous": True}]),
            ("delete", ["b"]),
            ("delete", ["c"]),
            ("get", ["d"]),
        ],
    )
    before = [Entry("a", b"1", 1), None, True, 2, Entry("a", b"1", 1), None, 7, 11, 2]
    assert result == TransactResult(True, 2, [*before, Entry("b", b"x", 1), False, True, Entry("d", b"7", 2)])
    assert db.revision == 2
    assert [entry.key async for entry in db.scan()] == ["d", "n", "new"]


async def test_the_other_operations_are_made_where_a_compare_does_not_hold(db: Database) -> None:
    result = await db.transact(
        compare=[("a", "exists", "=", True)], then=[("set", ["a", b""])], otherwise=[("get", ["a"])]
    )
    assert result == TransactResult(False, None, [None])
    assert await db.transact() == TransactResult(True, None, [])


async def test_a_failure_inside_says_where_and_changes_nothing(db: Database) -> None:
    await db.set("a", b"1")
    with pytest.raises(haptera.VersionMismatch) as caught:
        await db.transact(then=[("set", ["b", b"1"]), ("set", ["a", b"2", {"if_version": 7}])])
    place = {"branch": "then", "operation": 1}
    assert caught.value.details == {"key": "a", "expected": 7, "actual": 1, **place}
    assert caught.value.outcome == "not_applied"
    assert not await db.exists("b")
    with pytest.raises(TransactionTooLarge):
        await db.transact(then=[("get", ["a"])] * 129)


@pytest.mark.parametrize(
    ("error", "arguments"),
    [
        (ValueError, {"compare": [("a", "age", "=", 1)]}),
        (ValueError, {"compare": [("a", "version", "==", 1)]}),
        (ValueError, {"compare": [("a", "version", "=", -1)]}),
        (TypeError, {"compare": [("a", "version", "=", "1")]}),
        (TypeError, {"compare": [("a", "value", "=", 1)]}),
        (TypeError, {"compare": [(b"a", "exists", "=", True)]}),
        (TypeError, {"compare": [("a", "exists", "=")]}),
        (ValueError, {"then": [("clear", [])]}),
        (TypeError, {"then": [("get", "a")]}),
        (TypeError, {"then": [("get", [b"a"])]}),
        (haptera.errors.InvalidKey, {"then": [("get", [])]}),
        (haptera.errors.InvalidArgument, {"then": [("get", ["a", "b"])]}),
        (haptera.errors.InvalidArgument, {"then": [("set", ["a"])]}),
        (haptera.errors.InvalidArgument, {"otherwise": [("rename", ["a", 1])]}),
        (TypeError, {"otherwise": [("set", ["a", 1])]}),
        (ValueError, {"then": [("increment", ["a", 1 << 63])]}),
        (ValueError, {"then": [("set", ["a", "", {"if_version": 1 << 70}])]}),
        (ValueError, {"then": [(["get"], ["a"])]}),
        (ValueError, {"compare": [("a", "version", {}, 1)]}),
    ],
    ids=str,
)
async def test_a_mistake_in_a_transact_is_told_and_changes_nothing(
    db: Database, error: type[Exception], arguments: dict[str, Any]
) -> None:
    with pytest.raises(error):
        await db.transact(**arguments)
    assert db.revision == 0


@pytest.mark.parametrize(
    "results", [[], [None, None], [[b"1"]], [["1", 2]], [[1, 2]], [5], [[b"1", -2, None]]], ids=str
)
def test_results_that_do_not_fit_the_operations_are_malformed(results: list[Any]) -> None:
    with pytest.raises(RemoteProtocolError, match=r"kv\.transact does not fit"):
        transact_form.result(((), [("get", ["a"])], []), Transacted(True, None, results))


async def test_a_transaction_sees_its_own_writes_and_makes_them_at_its_end(db: Database) -> None:
    await db.set_many({"a": b"1", "b": b"2"})
    async with db.transaction() as tx:
        assert await tx.get("a") == Entry("a", b"1", 1)
        tx.set("a", "one")
        tx.set("c", bytearray(b"3"))
        tx.delete("b")
        assert await tx.get("a") == Entry("a", b"one", 0)
        assert await tx.get_many(["b", "c", "a", "no"]) == [None, Entry("c", b"3", 0), Entry("a", b"one", 0), None]
        assert (await tx.exists("b"), await tx.exists("c")) == (False, True)
        assert (await db.get("a"), tx.version) == (Entry("a", b"1", 1), None)
    assert tx.version == db.revision == 2
    assert await db.get_many(["a", "b", "c"]) == [Entry("a", b"one", 2), None, Entry("c", b"3", 2)]


async def test_the_results_of_operations_on_the_time_to_live_are_those_of_the_calls(db: Database) -> None:
    await db.set_many({"a": b"1", "b": b"2"})
    result = await db.transact(
        then=[
            ("set", ["a", b"2", {"ttl_ms": 5_000_000}]),
            ("ttl", ["a"]),
            ("set", ["a", b"3", {"keep_ttl": True}]),
            ("get_and_expire", ["a", {"persist": True}]),
            ("ttl", ["a"]),
            ("expire", ["b", 7_000_000]),
            ("expire", ["a", None]),
            ("get_and_delete", ["a"]),
            ("ttl", ["a"]),
        ]
    )
    gone = Entry("a", b"3", 2)
    assert result == TransactResult(True, 2, [2, 5000.0, 2, gone, None, 2, 2, gone, None])
    assert 6990 < cast("float", await db.ttl("b")) <= 7000


async def test_a_transaction_sets_the_time_to_live_with_its_commit(db: Database) -> None:
    await db.set("kept", b"1", ttl=5000)
    await db.set("ended", b"1", ttl=5000)
    async with db.transaction() as tx:
        tx.set("new", b"1", ttl=7000)
        tx.set("kept", b"2", keep_ttl=True)
        tx.set("ended", b"2")
        with pytest.raises(ValueError, match="exclude"):
            tx.set("new", b"", ttl=1, keep_ttl=True)
    times = [await db.ttl(key) for key in ("new", "kept", "ended")]
    assert [None if each is None else round(each, -1) for each in times] == [7000, 5000, None]


async def test_a_key_is_read_once(db: Database) -> None:
    await db.set("a", b"1")
    tx = db.transaction()
    first = await tx.get("a")
    await db.set("a", b"2")
    assert await tx.get("a") == first
    tx.set("b", b"")
    with pytest.raises(TransactionConflict):
        await tx.commit()


async def test_a_key_that_was_read_or_written_is_not_asked_for_again() -> None:
    asked: list[list[str]] = []

    async def get_many(keys: list[str]) -> list[Entry | None]:
        asked.append(keys)
        return [None] * len(keys)

    async def transact(compare: list[Any], then: list[Any], server_id: bytes | None) -> TransactResult:
        return TransactResult(True, 1, [])

    tx = Transaction(get_many, transact, lambda: SERVER)
    await tx.get_many(["a", "b", "a"])
    tx.set("c", b"")
    await tx.get_many(["b", "c", "d"])
    await tx.get("a")
    assert asked == [["a", "b"], ["d"]]


@pytest.mark.parametrize("change", ["set", "delete", "recreate", "create"])
async def test_a_change_of_what_was_read_is_a_conflict(db: Database, change: str) -> None:
    await db.set("a", b"1")

    async def conflicts() -> None:
        async with db.transaction() as tx:
            await tx.get_many(["a", "no"])
            tx.set("b", b"")
            if change in {"delete", "recreate"}:
                await db.delete("a")
            if change in {"set", "recreate"}:
                await db.set("a", b"1")
            if change == "create":
                await db.set("no", b"")

    with pytest.raises(TransactionConflict) as caught:
        await conflicts()
    assert (caught.value.outcome, caught.value.name) == ("not_applied", "TRANSACTION_CONFLICT")
    assert not await db.exists("b")


async def test_a_change_of_another_key_is_no_conflict(db: Database) -> None:
    async with db.transaction() as tx:
        await tx.get("a")
        tx.set("b", b"")
        await db.set("b", b"other")
    assert await db.get("b") == Entry("b", b"", 2)


async def test_reads_of_several_keys_at_different_times_are_of_one_moment_or_conflict(db: Database) -> None:
    first = db.transaction()
    await first.get("a")
    await db.set_many({"a": b"1", "b": b"1"})
    await first.get("b")
    with pytest.raises(TransactionConflict):
        await first.commit()
    async with db.transaction() as tx:
        assert [await tx.get("a"), await tx.get("b")] == [Entry("a", b"1", 1), Entry("b", b"1", 1)]
    assert tx.version is None


async def test_an_exception_drops_the_writes(db: Database) -> None:
    async def fails() -> None:
        async with db.transaction() as tx:
            tx.set("a", b"1")
            raise LookupError

    with pytest.raises(LookupError):
        await fails()
    assert not await db.exists("a")


async def test_a_transaction_that_has_ended_takes_nothing_more(db: Database) -> None:
    async with db.transaction() as tx:
        tx.set("a", b"1")
        await tx.commit()
        assert tx.version == 1
    with pytest.raises(ValueError, match="has ended"):
        tx.set("a", b"")
    with pytest.raises(ValueError, match="has ended"):
        tx.delete("a")
    for call in (tx.get("a"), tx.commit(), tx.__aenter__()):
        with pytest.raises(ValueError, match="has ended"):
            await call
    assert db.revision == 1


async def test_more_keys_than_a_transact_compares_are_too_many(db: Database) -> None:
    tx = db.transaction()
    await tx.get_many([f"k{number}" for number in range(129)])
    with pytest.raises(TransactionTooLarge):
        await tx.commit()


async def test_run_calls_the_function_again_after_a_conflict(db: Database) -> None:
    attempts: list[int] = []

    async def add(tx: Transaction) -> str:
        entry = await tx.get("n")
        attempts.append(0 if entry is None else int(entry.value))
        if len(attempts) < 3:
            await db.increment("n")
        tx.set("n", str(attempts[-1] + 10))
        return "done"

    assert await db.run(add) == "done"
    assert attempts == [0, 1, 2]
    assert await db.get("n") == Entry("n", b"12", 3)


async def test_run_gives_up_after_its_attempts(db: Database) -> None:
    attempts = 0

    async def always_late(tx: Transaction) -> None:
        nonlocal attempts
        attempts += 1
        await tx.get("n")
        tx.set("m", b"")
        await db.increment("n")

    with pytest.raises(TransactionConflict):
        await db.run(always_late, attempts=4)
    assert attempts == 4
    with pytest.raises(ValueError, match="attempts"):
        await db.run(always_late, attempts=0)


async def test_run_does_not_repeat_what_may_have_been_applied(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    async def lost(*_: Any, **__: Any) -> TransactResult:
        raise ConnectionLost("lost")

    async def write(tx: Transaction) -> None:
        nonlocal calls
        calls += 1
        tx.set("a", b"")

    monkeypatch.setattr(Database, "_transact_at", lost)
    with pytest.raises(ConnectionLost):
        await db.run(write)
    assert calls == 1


async def test_a_conflict_within_a_function_is_the_functions_own(db: Database) -> None:
    calls = 0

    async def raises(tx: Transaction) -> None:
        nonlocal calls
        calls += 1
        raise TransactionConflict

    with pytest.raises(TransactionConflict):
        await db.run(raises)
    assert calls == 1


ACCOUNTS = [f"account/{number}" for number in range(5)]
TOTAL = 100 * len(ACCOUNTS)


async def test_transfers_keep_the_sum_at_each_moment(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Strict serializability, as far as a sum shows it: no transfer is lost, halved, or seen in part."""
    monkeypatch.setattr(transaction, "_backoff", Backoff(first=0.0002, longest=0.005))
    await db.set_many(dict.fromkeys(ACCOUNTS, "100"))
    made = [0]
    seed = random.randrange(2**32)
    print(f"seed {seed}")

    async def transfers(number: int) -> None:
        choose = random.Random(seed + number)

        async def transfer(tx: Transaction) -> None:
            source, target = choose.sample(ACCOUNTS, 2)
            amount = choose.randint(1, 30)
            left, right = [int(cast("Entry", await tx.get(key)).value) for key in (source, target)]
            if left >= amount:
                tx.set(source, str(left - amount))
                tx.set(target, str(right + amount))
                made[0] += 1

        for _ in range(15):
            await db.run(transfer, attempts=1000)

    async def reads() -> None:
        while not done.is_set():
            await asyncio.sleep(0)  # an embedded store answers reads at once
            result = await db.transact(then=[("get", [key]) for key in ACCOUNTS])
            assert sum(int(cast("Entry", entry).value) for entry in result.results) == TOTAL
            assert sum(int(cast("Entry", entry).value) for entry in await db.get_many(ACCOUNTS)) == TOTAL

    done = asyncio.Event()
    reader = asyncio.create_task(reads())
    await asyncio.gather(*map(transfers, range(6)))
    done.set()
    await reader
    balances = [int(cast("Entry", entry).value) for entry in await db.get_many(ACCOUNTS)]
    assert sum(balances) == TOTAL
    assert min(balances) >= 0
    assert made[0] > 0


async def test_a_node_without_transactions_says_so() -> None:
    async with node(storage="memory") as url, haptera.dial(url) as peer:
        with pytest.raises(UnknownMethod) as caught:
            await peer.call("kv", KvMethods.transact.name, b"\x92\x90\x90")
        assert caught.value.details["capability"] == "kv_transact"


def serving(written: list[Any]) -> Callable[[Sent], None]:
    """A server whose keys have the version 1, and that makes every change."""

    def answer(sent: Sent) -> None:
        match sent.method:
            case "get":
                sent.answer(b"1", 1, None)
            case "get_many":
                sent.answer([[b"1", 1, None] for _ in sent.argument[0]])
            case _:
                written.append(sent.argument)
                sent.answer(True, 2, [[2, None]])

    return answer


@pytest.mark.parametrize("server_id", [SERVER, b"o" * 16])
@virtual_clock
async def test_trap_what_was_read_at_one_server_is_compared_at_another(server_id: bytes) -> None:
    """The same version of a restored store is another change, so the write would be made although a key is another."""
    written: list[Any] = []
    first, second = FakePeer(serving(written)), FakePeer(serving(written), server_id=server_id)
    async with Database(channel(Dialler(first, second)), "haptera://a:1", 5.0) as db:

        async def write() -> int | None:
            async with db.transaction() as tx:
                await tx.get("a")
                first.lose()
                tx.set("a", "2")
            return tx.version

        if server_id == SERVER:
            assert await write() == 2
        else:
            with pytest.raises(TransactionConflict):
                await write()
            assert written == []


@virtual_clock
async def test_a_commit_waits_until_its_server_has_named_itself() -> None:
    written: list[Any] = []
    first, silent, second = FakePeer(serving(written)), FakePeer(server_id=None), FakePeer(serving(written))
    async with Database(channel(Dialler(first, silent, second)), "haptera://a:1", 5.0) as db:
        async with db.transaction() as tx:
            await tx.get("a")
            first.lose()
            asyncio.get_running_loop().call_later(1, silent.lose)
            tx.set("a", "2")
        assert (tx.version, silent.sent, len(written)) == (2, [], 1)


@virtual_clock
async def test_a_transaction_is_run_again_where_its_reads_are_of_two_servers() -> None:
    written: list[Any] = []
    first, second = FakePeer(serving(written)), FakePeer(serving(written), server_id=b"o" * 16)
    async with Database(channel(Dialler(first, second)), "haptera://a:1", 5.0) as db:
        begun = 0

        async def write(tx: Transaction) -> None:
            nonlocal begun
            begun += 1
            await tx.get("a")
            if begun == 1:
                first.lose()
            await tx.get_many(["b", "c"])
            tx.set("a", "2")

        await db.run(write)
        assert (begun, len(written)) == (2, 1)
