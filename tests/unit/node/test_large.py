"""Large requests of the kv service: out of the batch, in turns, one at a time of each connection."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from haptera import key_rules
from haptera.node import slice_queue
from haptera.node.services import kv, large_requests, msgpack_slices, replies
from haptera.state import limits
from haptera.state.glob import compile_steps
from haptera.state.operations import SetMany
from haptera.state.scan_cursor import ScanCursor
from tests.unit.node.doubles import FakePeer
from tests.unit.node.nodes import Asked, turn
from tests.unit.node.test_kv import Served, served

if TYPE_CHECKING:
    from collections.abc import Callable

KEYS = [f"k{number:05}" for number in range(20_000)]


async def filled(store: Served, keys: list[str] = KEYS) -> None:
    Asked(store.node, SetMany([(key, key.encode()) for key in keys]))
    while store.node.keys < len(keys):
        await asyncio.sleep(0)


class Calls:
    """How often a method was called in each turn of the loop."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
        self.turn = 0
        self.per_turn: Counter[int] = Counter()
        self._loop = asyncio.get_running_loop()
        self._running = True
        called: Callable[..., Any] = getattr(owner, name)

        def counted(*args: Any, **options: Any) -> Any:
            self.per_turn[self.turn] += 1
            return called(*args, **options)

        monkeypatch.setattr(owner, name, counted)
        self._loop.call_soon(self._next)

    def _next(self) -> None:
        self.turn += 1
        if self._running:
            self._loop.call_soon(self._next)

    def stop(self) -> None:
        self._running = False


@pytest.mark.parametrize("connections", [1, 4])
async def test_trap_a_turn_for_everyone_per_loop_and_not_per_caller(
    connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any number of counts take no more pages in one turn of the loop than a few do; the last of each is short."""
    async with served() as store:
        await filled(store, KEYS[:5000])
        pages = Calls(monkeypatch, ScanCursor, "page")
        requests = []
        for _ in range(connections):
            other = Served(store.node)
            asked = [other.peer.request("count", {"glob": "*7*"}) for _ in range(32)]
            other.handle(*asked)
            requests += asked
        while not all(request.answered for request in requests):
            await asyncio.sleep(0)
        pages.stop()
        assert {tuple(request.result) for request in requests} == {(sum("7" in key for key in KEYS[:5000]),)}
        assert max(pages.per_turn.values()) <= 4 * slice_queue.TURN_WORK_MAX // limits.SLICE_WORK_MAX


async def test_trap_a_turn_for_everyone_where_many_connections_ask_for_some_keys_each() -> None:
    """Trap: a turn for everyone, per loop and not per caller. No argument is large by itself; together they are more
    than one turn of the loop may take. Requests of few keys are answered at once, beside any others.
    """
    async with served() as store:
        await filled(store, KEYS[:300])
        asked = []
        for _ in range(32):
            other = Served(store.node)
            requests = [other.peer.request("get_many", KEYS[:250]) for _ in range(16)]
            other.handle(*requests)
            asked += requests
        at_once = sum(request.answered for request in asked)
        assert 0 < at_once * 250 < slice_queue.TURN_WORK_MAX
        few = store.peer.request("get_many", KEYS[:10])
        store.handle(few)
        assert few.answered
        while not all(request.answered for request in asked):
            await asyncio.sleep(0)
        for request in asked:
            (entries,) = request.result
            assert [entry[0] for entry in entries] == [key.encode() for key in KEYS[:250]]


async def test_trap_a_turn_for_everyone_where_many_connections_ask_for_large_values() -> None:
    """Trap: a turn for everyone, per loop and not per caller. A few bytes of keys ask for megabytes of values, which
    are encoded in turns; each answer says the revision that its values are of.
    """
    async with served() as store:
        value = bytes(1 << 20)
        for key in KEYS[:4]:
            await store.ask("set", key, value)
        revision = store.node.revision
        asked, others = [], [Served(store.node) for _ in range(8)]
        for other in others:
            requests = [other.peer.request("get_many", KEYS[:4]), other.peer.request("get", KEYS[0])]
            other.handle(*requests)
            asked += requests
        assert sum(request.answered for request in asked) <= 1
        await store.ask("set", KEYS[0], b"new")
        while not all(request.answered for request in asked):
            await asyncio.sleep(0)
        for request in asked:
            found = request.result[0]
            assert found == value if request.method == "get" else [entry[0] for entry in found] == [value] * 4
            assert request.revision == revision


async def test_the_largest_answer_is_encoded_in_slices_and_others_are_answered_meanwhile() -> None:
    async with served() as store:
        values = [bytes((number,)) * (1 << 20) for number in range(15)]
        for key, value in zip(KEYS, values, strict=False):
            await store.ask("set", key, value)
        request = store.peer.request("get_many", KEYS[:15])
        store.handle(request)
        loop_turns = 0
        while not request.answered:
            other = Served(store.node)
            small = other.peer.request("get", "missing")
            other.handle(small)
            assert small.answered
            await asyncio.sleep(0)
            loop_turns += 1
        assert loop_turns > 15 * (1 << 20) / msgpack_slices.PIECE_SIZE / 8
        assert [entry[0] for entry in request.result[0]] == values
        large = store.peer.request("get", KEYS[3])
        store.handle(large, store.peer.request("get", KEYS[4]))
        while not large.answered:
            await asyncio.sleep(0)
        assert large.result == [values[3], 4, None]


@pytest.mark.parametrize(("count", "size"), [(2, 7 << 20), (15, 1 << 20), (1000, 15_000), (20_000, 700), (100_000, 1)])
def test_no_slice_of_encoding_an_answer_is_long(count: int, size: int) -> None:
    entries = [(bytes(size), number, None) for number in range(count)]
    units = list(msgpack_slices.encode_steps((entries,)))
    assert max(units) <= limits.SLICE_WORK_MAX
    assert sum(units) >= max(count, count * size // 1024)


async def test_large_answers_are_encoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """No budget counts an answer that is not whole yet, and any number of connections may ask for the largest."""
    under_way = most = 0
    encode_steps = msgpack_slices.encode_steps

    def counted(result: Any) -> Any:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            return (yield from encode_steps(result))
        finally:
            under_way -= 1

    monkeypatch.setattr(replies, "encode_steps", counted)
    async with served() as store:
        for key in KEYS[:15]:
            await store.ask("set", key, bytes(1 << 18))
        asked = []
        for _ in range(4):
            peer = FakePeer()
            requests = [peer.request("get_many", KEYS[:15]) for _ in range(2)]
            store.handle(*requests)
            asked += requests
        asked[1].cancel()
        while not all(request.answered for request in asked):
            await asyncio.sleep(0)
        assert [request.failure and request.code for request in asked] == [None, 3006, *[None] * 6]
    assert (most, under_way) == (1, 0)


async def test_trap_sixteen_requests_of_a_batch_in_one_turn_whatever_their_work() -> None:
    """Sixteen get_many of a batch are answered in turns; a get among them is answered at once."""
    async with served() as store:
        await filled(store)
        wanted = [*KEYS, "missing"]
        large = [store.peer.request("get_many", wanted) for _ in range(15)]
        small = store.peer.request("get", KEYS[0])
        store.handle(*large[:7], small, *large[7:])
        assert small.result[0] == KEYS[0].encode()
        assert not any(request.answered for request in large)
        loop_turns = 0
        while not all(request.answered for request in large):
            await asyncio.sleep(0)
            loop_turns += 1
        assert loop_turns > 15 * 2 * len(wanted) * 2 // slice_queue.TURN_WORK_MAX
        for request in large:
            (entries,) = request.result
            assert [entry and entry[0] for entry in entries] == [*(key.encode() for key in KEYS), None]
            assert request.revision == store.node.revision


async def test_a_large_get_many_is_of_one_revision() -> None:
    async with served() as store:
        await filled(store)
        request = store.peer.request("get_many", KEYS)
        store.handle(request)
        begun, history = store.node.revision, store.node._machine.kv.held
        while history.newest < 0:
            await asyncio.sleep(0)
        assert request.answers == 0
        await store.ask("set", KEYS[-1], b"new")
        await store.ask("delete", KEYS[-2])
        while not request.answered:
            await asyncio.sleep(0)
        (entries,) = request.result
        assert [entry[0] for entry in entries] == [key.encode() for key in KEYS]
        assert request.revision == begun
        assert history.newest == -1, "the revision is let go"


async def test_a_large_get_many_whose_revision_was_given_up_begins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served() as store:
        await filled(store)
        request = store.peer.request("get_many", KEYS)
        store.handle(request)
        history = store.node._machine.kv.held
        while history.newest < 0:
            await asyncio.sleep(0)
        monkeypatch.setattr(limits, "HELD_SIZE_MAX", 0)
        await store.ask("set", KEYS[0], b"new")
        while not request.answered:
            await asyncio.sleep(0)
        assert request.result[0][0][0] == b"new"
        assert request.revision == store.node.revision


async def test_large_requests_of_a_connection_are_decoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is decoded is not counted by any limit of the connection."""
    under_way = most = 0
    pieces_decode = msgpack_slices.decode_steps

    def decode_steps(*args: Any) -> Any:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        result = yield from pieces_decode(*args)
        under_way -= 1
        return result

    monkeypatch.setattr(kv, "decode_steps", decode_steps)
    async with served() as store:
        requests = [store.peer.request("set_many", [[key, b""] for key in KEYS[:2000]]) for _ in range(5)]
        store.handle(*requests)
        while not all(request.answered for request in requests):
            await asyncio.sleep(0)
        assert [request.result for request in requests] == [[version] for version in range(1, 6)]
    assert most == 1


@pytest.mark.parametrize(
    ("method", "argument", "code"),
    [
        ("set_many", [[["k", b""]] * 1000 + [["", b""]]], 4006),
        ("set_many", [[["k", b""]] * 1000 + [["k"]]], 3003),
        ("set_many", [[["k", b""]] * 1000, {"unknown": 1}], 3003),
        ("set_many", [[["k", bytes(key_rules.VALUE_SIZE_MAX + 1)]]], 4007),
        ("delete_many", [["k"] * 2000 + ["a" * (key_rules.KEY_SIZE_MAX + 1)]], 4006),
        ("get_many", [["k"] * (key_rules.KEYS_PER_COMMAND_MAX + 1)], 3003),
        ("get_many", [["k"] * 2000 + [7]], 3003),
        ("set", ["k", bytes(key_rules.VALUE_SIZE_MAX + 1)], 4007),
        ("get", ["k" * (large_requests.LARGE_SIZE + 1)], 4006),
        ("count", [{"glob": "[" + "a" * (large_requests.LARGE_SIZE + 1)}], 3003),
        ("scan", [{"glob": "[" + "a" * (large_requests.LARGE_SIZE + 1)}], 3003),
    ],
)
async def test_a_large_request_is_refused_as_a_small_one_is(method: str, argument: list[Any], code: int) -> None:
    async with served() as store:
        assert len(msgspec.msgpack.encode(argument)) > large_requests.LARGE_LIST_SIZE
        request = await store.ask(method, *argument)
        assert (request.code, store.node.keys) == (code, 0)
        assert request.failure is not None
        assert request.failure.outcome == "not_applied"


async def test_a_large_change_is_applied_once_for_each_request_id() -> None:
    async with served() as store:
        items = [[key, b"1"] for key in KEYS[:1000]]
        first = await store.ask("set_many", items, request_id=bytes(16))
        again = await store.ask("set_many", items, request_id=bytes(16))
        other = await store.ask("set_many", items[:-1], request_id=bytes(16))
        assert (first.result, again.result, other.code) == ([1], [1], 3012)
        assert store.node.revision == 1


async def test_a_large_request_that_is_cancelled_is_not_done() -> None:
    async with served() as store:
        requests = [store.peer.request("set_many", [[key, b""] for key in KEYS]) for _ in range(2)]
        store.handle(*requests)
        await turn()
        for request in requests:
            request.cancel()
        while not all(request.answered for request in requests):
            await asyncio.sleep(0)
        assert [request.code for request in requests] == [3006, 3006]
        assert store.node.keys == 0


async def test_a_large_answer_waits_for_room_and_others_do_not() -> None:
    async with served() as store:
        await filled(store, KEYS[:1000])
        store.peer.room = 0
        request = store.peer.request("get_many", KEYS[:1000])
        store.handle(request)
        while len(store.node.commands.turns) or not store.peer.waiting:
            await asyncio.sleep(0)
        assert request.answers == 0
        store.peer.make_room(1)
        while not request.answered:
            await asyncio.sleep(0)
        assert len(request.result[0]) == 1000


async def test_a_long_glob_is_compiled_in_slices() -> None:
    """Trap: compiling a glob on the loop. Sixteen of the longest in one batch, each another, and a get."""
    async with served() as store:
        await filled(store, KEYS[:10])
        globs = ["*" + f"[k{number % 10}]?" * 810 for number in range(16)]
        requests = [store.peer.request("count", {"glob": glob}) for glob in globs]
        small = store.peer.request("get", KEYS[0])
        store.handle(*requests, small)
        assert small.answered
        while not all(request.answered for request in requests):
            await asyncio.sleep(0)
        assert [request.result for request in requests] == [[0]] * 16


@pytest.mark.parametrize("glob", ["a" * 4096, "[ab]" * 1024, "*a" * 64 + "b" * 3900, "a?" * 2048])
def test_no_slice_of_compiling_a_glob_is_long(glob: str) -> None:
    units = list(compile_steps(glob))
    assert len(units) > 4
    assert max(units) <= limits.SLICE_WORK_MAX
