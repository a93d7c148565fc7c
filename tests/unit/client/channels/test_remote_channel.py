"""The remote channel against scripted peers: what is sent again, what is not, and what the caller is told."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from haptera.client.channels import remote_channel
from haptera.client.database import Database
from haptera.errors import ConfigurationError, ConnectionLost, RemoteProtocolError, ServerError, failure
from haptera.testing import virtual_clock
from tests.unit.client.doubles import SERVER, Dialler, FakePeer, FakeStream, Sent, channel

if TYPE_CHECKING:
    from haptera.transport import Address


def database(dial: Dialler, url: str = "haptera://a:1", *, timeout: float | None = 5.0, wait: bool = True) -> Database:
    opened = Database(channel(dial, url, wait=wait), url, timeout)
    databases.append(opened)
    return opened


databases: list[Database] = []


@pytest.fixture(autouse=True)
def every_database_is_closed() -> Iterator[None]:
    """What a test is about ends with its loop; here the databases are closed, so that none is dropped open."""
    yield
    while databases:
        asyncio.run(databases.pop().aclose())


def now() -> float:
    return asyncio.get_running_loop().time()


def answers(sent: Sent) -> None:
    if sent.method == "get":
        sent.answer(b"v:" + sent.argument[0].encode(), 7, None, revision=9)
    elif sent.method == "set":
        sent.answer(8, None, revision=8)


async def lost_with(peer: FakePeer, call: Any, outcome: str = "unknown") -> Any:
    """Loses the connection while ``call`` is under way on it."""
    task = asyncio.ensure_future(call)
    while not any(not sent.future.done() for sent in peer.sent):
        await asyncio.sleep(0)
    peer.lose(outcome)
    return await task


async def established(peer: FakePeer, db: Database) -> None:
    """One answered read, so that the client knows that there is a server."""
    read = asyncio.ensure_future(db.get("x"))
    while not peer.sent:
        await asyncio.sleep(0)
    peer.sent[-1].answer(b"", 1, None)
    await read


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


@virtual_clock
async def test_first_call_dials_and_later_ones_share_the_connection() -> None:
    dial = Dialler(FakePeer(answers))
    db = database(dial)
    assert dial.urls == []
    entries = await asyncio.gather(*(db.get(f"k{n}") for n in range(100)))
    assert [entry and entry.value for entry in entries] == [f"v:k{n}".encode() for n in range(100)]
    assert dial.urls == ["haptera://a:1"]
    assert db.revision == 9


@virtual_clock
async def test_a_database_says_whether_anything_can_have_been_sent() -> None:
    """Trap: an outcome that is not told."""
    db = database(Dialler(ConnectionLost("refused"), FakePeer(answers)), wait=False)
    assert not db.connected_once
    with pytest.raises(ConnectionLost):
        await db.set("k", b"v")
    assert not db.connected_once
    await db.set("k", b"v")
    await db.aclose()
    assert db.connected_once


@virtual_clock
async def test_nothing_runs_between_dialling_and_the_first_request() -> None:
    peer = FakePeer(answers)
    between: list[int] = []

    class Watching(Dialler):
        async def __call__(self, address: Address, /, *, timeout: float) -> Any:
            dialled = await super().__call__(address, timeout=timeout)
            # As dialling does: what is to leave behind HELLO is there a turn of the loop later.
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, lambda: between.append(len(peer.sent)))
            return dialled

    await database(Watching(peer)).set("k", b"v")
    await asyncio.sleep(0.001)
    assert between == [1]


@virtual_clock
async def test_only_changes_carry_a_request_id_and_each_its_own() -> None:
    peer = FakePeer(answers)
    db = database(Dialler(peer))
    await db.get("a")
    await db.set("a", b"1")
    await db.set("a", b"1")
    first, second, third = (sent.request_id for sent in peer.sent)
    assert first is None
    assert second is not None
    assert third is not None
    assert second != third


def damaged(sent: Sent) -> None:
    sent.fail(failure(1003, outcome="unknown"))


@virtual_clock
async def test_a_damaged_answer_is_remembered_until_its_call_has_ended() -> None:
    peer = FakePeer()
    db = database(Dialler(peer))
    call = asyncio.ensure_future(db.set("a", b"1"))
    for number in range(4):
        while len(peer.sent) == number:
            await asyncio.sleep(0.001)
        assert peer.sent[number].repeats
        assert not any(sent.future.released for sent in peer.sent)
        if number < 3:
            damaged(peer.sent[number])
    answers(peer.sent[3])
    await call
    assert all(sent.future.released for sent in peer.sent[:3])


@pytest.mark.parametrize("give_up", ["cancelled", "cancelled at once", "out of time"])
@virtual_clock
async def test_a_damaged_answer_is_forgotten_when_its_call_is_given_up(give_up: str) -> None:
    peer = FakePeer()
    db = database(Dialler(peer), timeout=1.0)
    await established(peer, db)
    call = asyncio.ensure_future(db.set("a", b"1"))
    await until(lambda: len(peer.sent) == 2)
    damaged(peer.sent[1])
    if give_up == "cancelled":
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    if give_up == "out of time":
        await until(lambda: len(peer.sent) == 3)
        peer.sent[2].fail(failure(3005, outcome="unknown"))
    else:
        call.cancel()
    await asyncio.wait((call,))
    assert peer.sent[1].future.released


@virtual_clock
async def test_an_answer_that_cannot_be_read_and_is_not_asked_for_again_is_forgotten() -> None:
    peer = FakePeer(lambda sent: sent.fail(failure(3004, outcome="unknown")))
    db = database(Dialler(peer))
    for _ in range(2):
        with pytest.raises(ServerError):
            await db.set("a", b"1")
    assert all(sent.future.released for sent in peer.sent)


@virtual_clock
async def test_lost_read_is_sent_again() -> None:
    first, second = FakePeer(), FakePeer(answers)
    db = database(Dialler(first, second))
    await established(first, db)
    entry = await lost_with(first, db.get("k"))
    assert entry.value == b"v:k"


@virtual_clock
async def test_lost_change_is_sent_again_with_its_id_after_welcome() -> None:
    first, second = FakePeer(), FakePeer(answers)
    db = database(Dialler(first, second))
    await established(first, db)
    assert await lost_with(first, db.set("k", b"v", if_version=3)) == 8
    assert second.waited_ready
    assert second.sent[0].request_id == first.sent[1].request_id is not None
    assert second.sent[0].argument == first.sent[1].argument == ["k", b"v", {"if_version": 3}]


@virtual_clock
async def test_lost_change_is_not_sent_again_when_its_machine_has_slept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap: a change resent when its server may have forgotten it. The loop's clock stood still for the hour."""
    slept_ns = 0
    monkeypatch.setattr(remote_channel, "boot_time_ns", lambda: slept_ns)
    first, second = FakePeer(), FakePeer(answers)
    db = database(Dialler(first, second), timeout=None)
    await established(first, db)
    call = asyncio.ensure_future(db.set("k", b"v"))
    await until(lambda: len(first.sent) == 2)
    slept_ns = 3600 * 10**9
    first.lose("unknown")
    with pytest.raises(ConnectionLost) as lost:
        await call
    assert lost.value.outcome == "unknown"
    assert not second.sent
    await db.set("k", b"v")


@virtual_clock
async def test_lost_change_is_not_sent_again_to_a_server_that_was_out_of_reach_for_long() -> None:
    """Trap: a change resent when its server may have forgotten it. Others could reach it all the while."""
    first, second = FakePeer(), FakePeer(answers)
    db = database(Dialler(first, *[OSError("no route")] * 200, second), timeout=None)
    await established(first, db)
    with pytest.raises(ConnectionLost) as lost:
        await lost_with(first, db.set("k", b"v"))
    assert lost.value.outcome == "unknown"
    assert not second.sent
    assert now() > 300
    await db.set("k", b"v")


@virtual_clock
async def test_lost_change_does_not_wait_for_a_free_stream_until_its_server_may_have_forgotten_it() -> None:
    """Trap: a change resent when its server may have forgotten it. All streams of the connection were in use."""
    first, second = FakePeer(), FakePeer(full=True)
    db = database(Dialler(first, second), timeout=None)
    await established(first, db)
    with pytest.raises(ConnectionLost, match="may not remember the change") as lost:
        await lost_with(first, db.set("k", b"v"))
    assert lost.value.outcome == "unknown"
    assert second.sent[0].future.cancelled()
    assert not second.closed, "calls of others go on"
    assert 299 < now() <= 301


@virtual_clock
async def test_lost_change_that_waits_for_a_free_stream_is_answered_and_can_be_cancelled() -> None:
    first, second = FakePeer(), FakePeer(full=True)
    db = database(Dialler(first, second), timeout=None)
    await established(first, db)
    calls = [asyncio.ensure_future(db.set("k", b"v")) for _ in range(2)]
    await until(lambda: len(first.sent) == 3)
    first.lose("unknown")
    await until(lambda: len(second.sent) == 2)
    answered, cancelled = second.sent
    await asyncio.sleep(200)
    answered.future.stream = 1
    calls[1].cancel()
    await asyncio.wait(calls[1:])
    assert cancelled.future.cancelled()
    await asyncio.sleep(200)
    answered.answer(8, None)
    assert await calls[0] == 8


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (FakePeer(capabilities=frozenset()), FakePeer(answers)),
        (FakePeer(), FakePeer(answers, capabilities=frozenset())),
        (FakePeer(), FakePeer(answers, server_id=b"other server id.")),
    ],
    ids=["never remembered", "remembers no more", "another server"],
)
@virtual_clock
async def test_lost_change_is_not_sent_to_one_that_does_not_remember_it(before: FakePeer, after: FakePeer) -> None:
    first = FakePeer(capabilities=before.capabilities)
    second = FakePeer(answers, capabilities=after.capabilities, server_id=after.server_id)
    db = database(Dialler(first, second))
    await established(first, db)
    with pytest.raises(ConnectionLost) as lost:
        await lost_with(first, db.set("k", b"v"))
    assert lost.value.outcome == "unknown"
    assert second.sent == []


@virtual_clock
async def test_change_that_never_left_is_sent_again_to_any_server() -> None:
    first, second = FakePeer(capabilities=frozenset()), FakePeer(answers, server_id=b"other server id.")
    db = database(Dialler(first, second))
    await established(first, db)
    assert await lost_with(first, db.set("k", b"v"), "not_applied") == 8


@virtual_clock
async def test_resending_ends_with_the_timeout_and_says_what_is_known() -> None:
    first = FakePeer()
    dial = Dialler(first, ConnectionRefusedError("Connection refused"))
    db = database(dial, timeout=30.0)
    await established(first, db)
    with pytest.raises(ConnectionLost, match="Connection refused") as lost:
        await lost_with(first, db.set("k", b"v"))
    assert lost.value.outcome == "unknown"
    assert now() == 30.0
    waits = [later - earlier for earlier, later in itertools.pairwise(dial.times[1:])]
    assert waits[:6] == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.6])
    assert waits[6:-1] == pytest.approx([2.0] * len(waits[6:-1]))  # the longest wait of all, reached by doubling
    with pytest.raises(ConnectionLost) as never_sent:
        await db.set("k", b"v")
    assert never_sent.value.outcome == "not_applied"
    assert now() == 60.0


@virtual_clock
async def test_server_that_never_answered_is_tried_once_by_a_client_that_does_not_wait() -> None:
    dial = Dialler(ConnectionRefusedError("Connection refused"))
    db = database(dial, wait=False)
    for number in (1, 2):
        with pytest.raises(ConnectionLost, match="cannot connect to a:1: Connection refused") as lost:
            await db.set("k", b"v")
        assert lost.value.outcome == "not_applied"
        assert len(dial.urls) == number


@virtual_clock
async def test_first_call_waits_for_its_server_as_long_as_it_has_time() -> None:
    """Trap: the first connection is never waited for, although the call has time left."""
    down = ConnectionRefusedError("Connection refused")
    peer = FakePeer(answers)
    assert await database(Dialler(*[down] * 5, peer)).set("k", b"v") == 8
    assert now() > 1.0
    start = now()
    with pytest.raises(ConnectionLost, match=r"in time \(cannot connect to a:1: Connection refused\)") as lost:
        await database(Dialler(down)).set("k", b"v")
    assert now() - start == 5.0
    assert lost.value.outcome == "not_applied"


@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize("code", [1012, 1013, 1014])
@pytest.mark.parametrize("call", ["get", "set", "scan"])
@virtual_clock
async def test_refusal_of_the_first_connection_that_passes_is_dialled_again(call: str, code: int, wait: bool) -> None:
    """Trap: a retryable refusal that the first connection does not retry."""
    last = FakePeer(answers)
    last.streams = [FakeStream([[["a", b"1", 4, None]]], [1, "a", 9])]
    refusals = [refusing(code) for _ in range(3)]
    for refusal in refusals:
        refusal.streams = [FakeStream([refusal._loss("not_applied")], None)]
    dial = Dialler(*refusals, last)
    await CALLS[call](database(dial, wait=wait))
    assert len(dial.urls) == 4


@virtual_clock
async def test_refusal_that_passes_is_told_when_time_is_over() -> None:
    dial = Dialler(*(refusing(1013) for _ in range(50)))
    with pytest.raises(ConnectionLost, match="TOO_MANY_CONNECTIONS") as lost:
        await database(dial).set("k", b"v")
    assert (lost.value.outcome, now()) == ("not_applied", 5.0)
    assert lost.value.failure is not None
    assert lost.value.failure.code == 1013


@pytest.mark.parametrize("restarted", ["while it is dialled", "behind HELLO"])
@virtual_clock
async def test_calls_made_before_the_first_connection_is_up_outlive_a_restart(restarted: str) -> None:
    """Trap: calls that wait for the first connection all fail with it, where one call before makes them succeed."""
    first = FakePeer(server_id=None, capabilities=frozenset())
    down = ConnectionRefusedError("Connection refused")
    script = [down] if restarted == "while it is dialled" else [first]
    db = database(Dialler(*script, down, FakePeer(answers)))
    calls = [asyncio.ensure_future(db.set(f"k{number}", b"v")) for number in range(500)]
    await asyncio.sleep(0.01)
    first.lose()
    assert await asyncio.gather(*calls) == [8] * 500
    assert first.sent == []  # none goes to a server that might die before it says which one it is


@virtual_clock
async def test_what_ends_before_welcome_is_dialled_again_by_a_client_that_waits_alone() -> None:
    peer = FakePeer(server_id=None, capabilities=frozenset())
    dial = Dialler(peer, FakePeer(answers))
    with pytest.raises(ConnectionLost):
        await lost_with(peer, database(dial, wait=False).get("k"))
    assert len(dial.urls) == 1
    peer = FakePeer(server_id=None, capabilities=frozenset())
    entry = await lost_with(peer, database(Dialler(peer, FakePeer(answers))).get("k"))
    assert entry.value == b"v:k"


@virtual_clock
async def test_change_behind_the_first_hello_that_is_lost_is_not_guessed_about() -> None:
    """It saves a round trip, and no server has said that it may have applied it."""
    peer, second = FakePeer(server_id=None, capabilities=frozenset()), FakePeer(answers)
    with pytest.raises(ConnectionLost) as lost:
        await lost_with(peer, database(Dialler(peer, second)).set("k", b"v"))
    assert lost.value.outcome == "unknown"
    assert second.sent == []


@pytest.mark.parametrize("why", ["another host", "another connection"])
@virtual_clock
async def test_change_waits_for_welcome_where_it_could_be_made_elsewhere(why: str) -> None:
    """Behind HELLO its fate would be unknown with the connection."""
    first, second = FakePeer(), FakePeer(server_id=None, capabilities=frozenset())
    if why == "another connection":
        db = database(Dialler(first, second))
        await established(first, db)
        first.lose()
    else:
        db = database(Dialler(second), "haptera://a:1,b:1")
    change = asyncio.ensure_future(db.set("k", b"v"))
    await asyncio.sleep(0.01)
    assert second.sent == []
    change.cancel()


class Slow(FakePeer):
    """It says WELCOME after 3 seconds."""

    def __init__(self) -> None:
        super().__init__(answers, server_id=None)

    async def ready(self) -> None:
        await asyncio.sleep(3.0)
        self.server_id = SERVER


@virtual_clock
async def test_single_host_has_the_time_of_a_handshake() -> None:
    dial = Dialler(Slow())
    db = database(dial)
    assert tuple(await asyncio.gather(db.set("a", b"v"), db.set("b", b"v"))) == (8, 8)
    assert (now(), len(dial.urls)) == (3.0, 1)


@virtual_clock
async def test_frozen_host_is_passed_over_where_there_is_another() -> None:
    dial = Dialler(Slow(), FakePeer(answers))
    assert await database(dial, "haptera://a:1,b:1").set("k", b"v") == 8
    assert dial.urls == ["haptera://a:1", "haptera://b:1"]
    assert 2.0 <= now() < 3.0


@virtual_clock
async def test_host_that_has_no_room_now_is_tried_behind_the_others() -> None:
    dial = Dialler(refusing(1013), FakePeer(answers))
    assert await database(dial, "haptera://a:1,b:1").set("k", b"v") == 8
    assert dial.urls == ["haptera://a:1", "haptera://b:1"]


@virtual_clock
async def test_calls_that_wait_for_a_connection_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("haptera.peer.connector.WAITING_MAX", 10)
    peer = FakePeer(server_id=None, capabilities=frozenset())
    db = database(Dialler(peer))
    calls = [asyncio.ensure_future(db.set(f"k{number}", b"v")) for number in range(10)]
    await asyncio.sleep(0.01)
    with pytest.raises(ServerError) as refused:
        await db.set("one more", b"v")
    assert (refused.value.code, refused.value.outcome) == (3007, "not_applied")
    assert now() < 5.0
    for call in calls:
        call.cancel()


@virtual_clock
async def test_client_that_does_not_wait_waits_for_a_server_that_has_answered() -> None:
    first, down = FakePeer(), ConnectionRefusedError("Connection refused")
    db = database(Dialler(first, down, down, FakePeer(answers)), wait=False)
    await established(first, db)
    first.lose()
    assert await db.set("k", b"v") == 8


@virtual_clock
async def test_several_hosts_are_tried_in_turn_and_the_good_one_is_kept() -> None:
    refused = ConnectionRefusedError("Connection refused")
    first, second = FakePeer(), FakePeer(answers)
    dial = Dialler(refused, first, second)
    db = database(dial, "haptera://a:1,b:1")
    await established(first, db)
    await lost_with(first, db.get("k"))
    assert dial.urls == ["haptera://a:1", "haptera://b:1", "haptera://b:1"]


def refusing(code: int) -> FakePeer:
    return FakePeer(server_id=None, capabilities=frozenset(), refusal=failure(code))


CALLS: dict[str, Callable[[Database], Awaitable[object]]] = {
    "get": lambda db: db.get("k"),
    "set": lambda db: db.set("k", b"v"),
    "scan": lambda db: anext(db.scan()),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("code", [1001, 1008, 1011, 2001, 2002])
@virtual_clock
async def test_refusal_that_no_retry_mends_is_told_at_once(
    code: int, call: Callable[[Database], Awaitable[object]]
) -> None:
    first, second = FakePeer(), refusing(code)
    second.streams = [FakeStream([second._loss("not_applied")], None)]
    dial = Dialler(first, second)
    db = database(dial, timeout=60.0)
    await established(first, db)
    first.lose()
    with pytest.raises(ConnectionLost) as refused:
        await call(db)
    assert refused.value.failure == failure(code)
    assert refused.value.outcome == "not_applied"
    assert len(dial.urls) == 2
    assert now() == 0.0


@pytest.mark.parametrize("code", [1003, 1012, 1013, 1014])
@virtual_clock
async def test_refusal_that_passes_is_dialled_again(code: int) -> None:
    first, last = FakePeer(), FakePeer(answers)
    dial = Dialler(first, refusing(code), refusing(code), last)
    db = database(dial)
    await established(first, db)
    first.lose()
    assert await db.set("k", b"v") == 8
    assert len(dial.urls) == 4


@virtual_clock
async def test_host_that_refuses_for_good_does_not_keep_a_call_from_another() -> None:
    first, down, last = FakePeer(), ConnectionRefusedError("Connection refused"), FakePeer(answers)
    dial = Dialler(first, refusing(1011), down, refusing(1011), down, refusing(1011), last)
    db = database(dial, "haptera://a:1,b:1")
    await established(first, db)
    first.lose()
    assert await db.set("k", b"v") == 8
    assert [url[10] for url in dial.urls] == list("a" + "ab" * 3)


@virtual_clock
async def test_every_host_is_tried_before_the_first_refusal_is_believed() -> None:
    good = Dialler(refusing(1011), FakePeer(answers))
    entry = await database(good, "haptera://a:1,b:1").get("k")
    assert entry is not None
    bad = Dialler(refusing(1011), refusing(1013))
    with pytest.raises(ConnectionLost, match="TOO_MANY_CONNECTIONS"):
        await database(bad, "haptera://a:1,b:1").get("k")
    assert [url[10] for url in bad.urls[:3]] == ["a", "b", "b"]  # one asks for patience, the other never changes


@pytest.mark.parametrize("code", [1014, 5005])
@virtual_clock
async def test_server_that_goes_away_is_left_for_a_new_connection(code: int) -> None:
    leaving = FakePeer(lambda sent: sent.fail(failure(code, outcome="not_applied")))
    new = FakePeer(answers)
    dial = Dialler(leaving, new)
    assert await database(dial).set("k", b"v") == 8
    assert len(dial.urls) == 2


@pytest.mark.parametrize("code", [1003, 3007, 3008])
@virtual_clock
async def test_refusal_that_passes_is_tried_again_on_the_same_connection(code: int) -> None:
    refusals = [failure(code, outcome="not_applied")] * 3

    def answer(sent: Sent) -> None:
        if refusals:
            sent.fail(refusals.pop())
        else:
            answers(sent)

    peer = FakePeer(answer)
    dial = Dialler(peer)
    assert await database(dial).set("k", b"v") == 8
    assert len(dial.urls) == 1
    assert [sent.time for sent in peer.sent] == pytest.approx([0.0, 0.05, 0.15, 0.35])


@pytest.mark.parametrize("outcome", ["unknown", "applied"])
@pytest.mark.parametrize("code", [1003, 3007])
@virtual_clock
async def test_read_is_tried_again_whatever_its_refusal_says_of_the_outcome(code: int, outcome: Any) -> None:
    refusals = [failure(code, outcome=outcome)] * 3
    peer = FakePeer(lambda sent: sent.fail(refusals.pop()) if refusals else answers(sent))
    entry = await database(Dialler(peer)).get("k")
    assert entry is not None
    assert entry.value == b"v:k"
    assert len(peer.sent) == 4


@virtual_clock
async def test_change_whose_answer_was_damaged_is_sent_again_under_its_id() -> None:
    damaged = [failure(1003, outcome="unknown")] * 2
    peer = FakePeer(lambda sent: sent.fail(damaged.pop()) if damaged else answers(sent))
    assert await database(Dialler(peer)).set("k", b"v") == 8
    assert len({sent.request_id for sent in peer.sent}) == 1
    assert len(peer.sent) == 3


@pytest.mark.parametrize("established_before", [False, True])
@virtual_clock
async def test_change_whose_answer_was_damaged_is_not_sent_to_one_that_does_not_remember_it(
    established_before: bool,
) -> None:
    peer = FakePeer(answers, capabilities=frozenset())
    db = database(Dialler(peer))
    if established_before:
        await db.get("x")
    before = len(peer.sent)
    peer._answer = lambda sent: sent.fail(failure(1003, outcome="unknown"))
    with pytest.raises(ServerError) as damaged:
        await db.set("k", b"v")
    assert (damaged.value.code, damaged.value.outcome) == (1003, "unknown")
    assert len(peer.sent) == before + 1


@virtual_clock
async def test_damage_without_end_is_told_when_time_is_over() -> None:
    peer = FakePeer(lambda sent: sent.fail(failure(1003, outcome="unknown")))
    with pytest.raises(ServerError) as damaged:
        await database(Dialler(peer), timeout=30.0).get("k")
    assert damaged.value.code == 1003
    assert now() == 30.0


@pytest.mark.parametrize(
    ("code", "outcome"), [(5001, "not_applied"), (5002, "not_applied"), (3007, "unknown"), (3005, "unknown")]
)
@virtual_clock
async def test_other_refusals_are_raised_at_once(code: int, outcome: Any) -> None:
    peer = FakePeer(lambda sent: sent.fail(failure(code, outcome=outcome)))
    with pytest.raises(ServerError) as refused:
        await database(Dialler(peer)).set("k", b"v")
    assert (refused.value.code, refused.value.outcome) == (code, outcome)
    assert len(peer.sent) == 1


@virtual_clock
async def test_refusal_of_a_repetition_does_not_deny_the_first_attempt() -> None:
    first, second = FakePeer(), FakePeer(lambda sent: sent.fail(failure(5002, outcome="not_applied")))
    db = database(Dialler(first, second))
    await established(first, db)
    with pytest.raises(ServerError) as refused:
        await lost_with(first, db.set("k", b"v"))
    assert refused.value.outcome == "unknown"


@virtual_clock
async def test_condition_that_fails_on_a_repetition_is_believed() -> None:
    first, second = FakePeer(), FakePeer(lambda sent: sent.fail(failure(4002, outcome="not_applied")))
    db = database(Dialler(first, second))
    await established(first, db)
    with pytest.raises(ServerError) as refused:
        await lost_with(first, db.set("k", b"v", if_version=1))
    assert refused.value.outcome == "not_applied"


@pytest.mark.parametrize("end", ["cancelled", "out of time"])
@virtual_clock
async def test_attempt_outlives_the_caller_that_began_it(end: str) -> None:
    """Trap: what one dial attempt learnt is lost with one caller's deadline."""
    peer = FakePeer(answers)

    class Slow(Dialler):
        async def __call__(self, address: Address, /, *, timeout: float) -> Any:
            dialled = await super().__call__(address, timeout=timeout)
            await asyncio.sleep(4.0)
            return dialled

    dial = Slow(peer)
    db = database(dial)
    first = asyncio.ensure_future(db.get("a", timeout=1.0))
    await asyncio.sleep(0.5)
    if end == "cancelled":
        first.cancel()
    with pytest.raises((ConnectionLost, asyncio.CancelledError)):
        await first
    entries = await asyncio.gather(*(db.get(f"k{number}") for number in range(3)))
    assert [entry and entry.value for entry in entries] == [b"v:k0", b"v:k1", b"v:k2"]
    assert now() == 4.0
    assert len(dial.urls) == 1
    assert len(peer.sent) == 3


@virtual_clock
async def test_nobody_dials_on_for_callers_that_are_gone() -> None:
    dial = Dialler(ConnectionRefusedError("Connection refused"))
    db = database(dial)
    with pytest.raises(ConnectionLost):
        await db.get("a")
    dialled = len(dial.urls)
    await asyncio.sleep(60.0)
    assert len(dial.urls) <= dialled + 1


@virtual_clock
async def test_draining_loses_no_call_that_waits_for_the_first_connection() -> None:
    """Trap: a drain fails the calls that wait for a connection."""
    down = ConnectionRefusedError("Connection refused")
    peer = FakePeer(answers)
    db = database(Dialler(down, down, peer))
    calls = [asyncio.ensure_future(db.set(f"k{number}", b"v")) for number in range(2000)]
    await asyncio.sleep(0)
    drain = asyncio.ensure_future(db.drain())
    await asyncio.sleep(0)
    with pytest.raises(ConnectionLost, match="closed") as late:
        await db.set("late", b"v")
    assert late.value.outcome == "not_applied"
    assert await asyncio.gather(*calls) == [8] * 2000
    await drain
    assert peer.closed
    assert now() < 1.0


@virtual_clock
async def test_draining_waits_no_longer_than_it_is_told_to() -> None:
    db = database(Dialler(ConnectionRefusedError("Connection refused")), timeout=None)
    call = asyncio.ensure_future(db.get("k"))
    await asyncio.sleep(0)
    await db.drain(timeout=30.0)
    assert now() == 30.0
    with pytest.raises(ConnectionLost, match="closed"):
        await call


@virtual_clock
async def test_waiting_for_anothers_dialling_is_bounded_by_the_own_timeout() -> None:
    class Never(Dialler):
        async def __call__(self, address: Address, /, *, timeout: float) -> Any:
            await asyncio.Event().wait()

    db = database(Never(FakePeer()))
    patient = asyncio.ensure_future(db.get("a", timeout=None))
    await asyncio.sleep(0)
    with pytest.raises(ConnectionLost, match="in time"):
        await db.get("b", timeout=5.0)
    assert now() == 5.0
    patient.cancel()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x90",
        b"\x93\xa1x\x01\xc0",
        b"\x92\xc4\x01x\xa1y",
        b"\x92\xc4\x01x\xff",
        b"\x81\x01\x02",
        b"\x92\xc4\x01x\x01\x00",
    ],
)
@virtual_clock
async def test_malformed_answer_is_a_protocol_error(payload: bytes) -> None:
    peer = FakePeer(lambda sent: sent.answer_bytes(payload))
    with pytest.raises(RemoteProtocolError, match=r"kv\.get"):
        await database(Dialler(peer)).get("k")


@virtual_clock
async def test_fields_that_a_later_version_adds_are_ignored() -> None:
    peer = FakePeer(lambda sent: sent.answer(b"v", 3, None, "new", {"more": 1}))
    entry = await database(Dialler(peer)).get("k")
    assert entry is not None
    assert (entry.value, entry.version) == (b"v", 3)


@virtual_clock
async def test_answer_with_another_number_of_entries_is_a_protocol_error() -> None:
    peer = FakePeer(lambda sent: sent.answer([[b"v", 1, None]]))
    with pytest.raises(RemoteProtocolError, match="1 entries for 2 keys"):
        await database(Dialler(peer)).get_many(["a", "b"])


@virtual_clock
async def test_closed_client_refuses_calls_and_ends_those_under_way() -> None:
    peer = FakePeer()
    db = database(Dialler(peer))
    call = asyncio.ensure_future(db.set("k", b"v"))
    while not peer.sent:
        await asyncio.sleep(0)
    await db.aclose()
    with pytest.raises(ConnectionLost) as lost:
        await call
    assert lost.value.outcome == "unknown"
    with pytest.raises(ConnectionLost, match="closed") as refused:
        await db.get("k")
    assert refused.value.outcome == "not_applied"
    await db.aclose()


@virtual_clock
async def test_cancelled_call_cancels_the_request() -> None:
    peer = FakePeer()
    db = database(Dialler(peer))
    call = asyncio.ensure_future(db.get("k"))
    while not peer.sent:
        await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert peer.sent[0].future.cancelled()


@virtual_clock
async def test_key_with_a_lone_surrogate_is_an_invalid_key() -> None:
    with pytest.raises(ServerError) as refused:
        await database(Dialler(FakePeer(answers))).get("\ud800")
    assert refused.value.code == 4006


@virtual_clock
async def test_scan_gives_rows_and_its_end() -> None:
    peer = FakePeer()
    peer.streams = [FakeStream([[["a", b"1", 4, None]], [["b", b"2", 5, None], ["c", None, 6, 1500]]], [3, "c", 9])]
    scan = database(Dialler(peer)).scan(prefix="")
    assert scan.revision is None
    rows = [(entry.key, entry.value, entry.version, entry.expires_at) async for entry in scan]
    assert rows == [("a", b"1", 4, None), ("b", b"2", 5, None), ("c", b"", 6, 1.5)]
    assert [scan.revision, scan.count, scan.last_key] == [9, 3, "c"]


@virtual_clock
async def test_scan_is_sent_again_before_its_first_page_and_not_after() -> None:
    first, second = FakePeer(), FakePeer(answers)
    first.streams = [FakeStream([ConnectionLost("cut", outcome="unknown")], None)]
    second.streams = [
        FakeStream([[["a", b"1", 4, None]]], [1, "a", 9]),
        FakeStream([[["a", b"1", 4, None]], ConnectionLost("cut", outcome="unknown")], None),
    ]
    db = database(Dialler(first, second))
    await established(first, db)
    assert [entry.key async for entry in db.scan()] == ["a"]
    scan = db.scan()
    assert (await anext(scan)).key == "a"
    with pytest.raises(ConnectionLost):
        await anext(scan)


@virtual_clock
async def test_scan_left_early_closes_its_stream() -> None:
    peer = FakePeer()
    stream = FakeStream([[["a", b"1", 4, None], ["b", b"", 4, None]]], [2, "b", 9])
    peer.streams = [stream]
    async with database(Dialler(peer)).scan() as rows:
        async for _ in rows:
            break
    assert stream.closed


@pytest.mark.parametrize("page", [b"\xc1", b"\x91\x93\x01\x01\x01", b"\xdd\xff\xff\xff\xff"])
@virtual_clock
async def test_malformed_page_is_a_protocol_error(page: bytes) -> None:
    peer = FakePeer()
    peer.streams = [FakeStream([page], None)]
    with pytest.raises(RemoteProtocolError):
        await anext(database(Dialler(peer)).scan())


@virtual_clock
async def test_error_that_no_dialling_mends_is_told_to_each_caller() -> None:
    class Broken(Dialler):
        async def __call__(self, address: Address, /, *, timeout: float) -> Any:
            raise ConfigurationError("the key file cannot be used")

    db = database(Broken(FakePeer()), timeout=None)
    calls = [asyncio.ensure_future(db.get(f"k{number}")) for number in range(3)]
    for call in calls:
        with pytest.raises(ConfigurationError, match="key file"):
            await call


@virtual_clock
async def test_closing_leaves_no_attempt_at_work() -> None:
    """It would open a connection that no client closes."""

    class Never(Dialler):
        async def __call__(self, address: Address, /, *, timeout: float) -> Any:
            await asyncio.Event().wait()

    db = database(Never(FakePeer()))
    call = asyncio.ensure_future(db.get("k"))
    await asyncio.sleep(0.01)
    await db.aclose()
    with pytest.raises(ConnectionLost, match="closed"):
        await call
    assert len(asyncio.all_tasks()) == 1


@virtual_clock
async def test_closing_ends_a_dialling_that_has_no_time_limit() -> None:
    first = FakePeer()
    dial = Dialler(first, ConnectionRefusedError("Connection refused"))
    db = database(dial, timeout=None)
    await established(first, db)
    first.lose()
    call = asyncio.ensure_future(db.get("k"))
    await asyncio.sleep(3600.0)
    assert len(dial.urls) > 1000
    await db.aclose()
    with pytest.raises(ConnectionLost, match="closed"):
        await call


@virtual_clock
async def test_no_wait_is_longer_than_the_time_that_is_left() -> None:
    peer = FakePeer(lambda sent: sent.fail(failure(3007, outcome="not_applied")))
    with pytest.raises(ServerError):
        await database(Dialler(peer), timeout=0.12).get("k")
    assert now() == 0.12
    assert [sent.time for sent in peer.sent] == pytest.approx([0.0, 0.05])


FULL = failure(3008, {"remembered_requests_max": 7}, outcome="not_applied")


@virtual_clock
async def test_a_refusal_that_is_repeated_to_the_end_is_told_as_what_it_is() -> None:
    """Trap: the real reason is hidden. Each attempt was certainly not applied, and so was the call."""
    peer = FakePeer(lambda sent: sent.fail(FULL))
    db = database(Dialler(peer), timeout=3.0)
    with pytest.raises(ServerError) as refused:
        await db.set("a", b"1")
    assert (refused.value.code, refused.value.outcome) == (3008, "not_applied")
    assert refused.value.details == {"remembered_requests_max": 7}
    assert now() == 3.0
    assert all(sent.timeout is not None and sent.timeout > 0.01 for sent in peer.sent)


@virtual_clock
async def test_a_deadline_behind_a_refusal_is_told_as_the_refusal() -> None:
    failures = iter([FULL, failure(3005, outcome="not_applied")])
    db = database(Dialler(FakePeer(lambda sent: sent.fail(next(failures)))))
    with pytest.raises(ServerError) as refused:
        await db.set("a", b"1")
    assert (refused.value.code, refused.value.outcome) == (3008, "not_applied")


@virtual_clock
async def test_an_attempt_without_an_answer_behind_a_refusal_is_unknown_and_names_the_refusal() -> None:
    peer = FakePeer()
    db = database(Dialler(peer))
    call = asyncio.ensure_future(db.set("a", b"1"))
    await until(lambda: len(peer.sent) == 1)
    peer.sent[0].fail(FULL)
    await until(lambda: len(peer.sent) == 2)
    peer.sent[1].future.set_exception(failure(3005, outcome="unknown").exception())
    with pytest.raises(ServerError) as late:
        await call
    assert (late.value.code, late.value.outcome) == (3005, "unknown")
    assert isinstance(late.value.__cause__, ServerError)
    assert late.value.__cause__.code == 3008


@pytest.mark.parametrize(("first", "told"), [("unknown", (3005, "unknown")), ("not_applied", (3005, "not_applied"))])
@virtual_clock
async def test_a_repetition_that_never_left_does_not_deny_the_first_attempt(first: str, told: tuple[int, str]) -> None:
    """Trap: an outcome that is not told. The repetition waited behind a full connection until its time was over."""
    before, after = FakePeer(), FakePeer()
    db = database(Dialler(before, after))
    await established(before, db)
    call = asyncio.ensure_future(lost_with(before, db.increment("n"), first))
    await until(lambda: len(after.sent) == 1)
    after.sent[0].future.set_exception(failure(3005, outcome="not_applied").exception())
    with pytest.raises(ServerError) as late:
        await call
    assert (late.value.code, late.value.outcome) == told


@virtual_clock
async def test_a_repetition_that_never_left_is_told_as_the_refusal_before_it() -> None:
    """Trap: the real reason is hidden."""
    peer = FakePeer()
    call = asyncio.ensure_future(database(Dialler(peer)).set("a", b"1"))
    await until(lambda: len(peer.sent) == 1)
    peer.sent[0].fail(FULL)
    await until(lambda: len(peer.sent) == 2)
    peer.sent[1].future.set_exception(failure(3005, outcome="not_applied").exception())
    with pytest.raises(ServerError) as refused:
        await call
    assert (refused.value.code, refused.value.outcome) == (3008, "not_applied")
