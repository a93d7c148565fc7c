"""The kv service: batches of requests in, answers with their revision out, and no more at a time than there is room."""

from __future__ import annotations

import asyncio
import gc
import weakref
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import pytest

from haptera.node import scans, slice_queue
from haptera.node.scans import PROGRESS_TIMEOUT_S
from haptera.node.services import replies, write_requests
from haptera.node.services.kv import KvService
from haptera.node.services.long_reads import HURRIED_ROWS_MAX, PAGE_SIZE_MAX
from haptera.state import limits
from haptera.state.operations import Set, SetMany
from tests.unit.node.doubles import TAG_REPLAYED, TAG_REVISION, FakePeer, FakeRequest
from tests.unit.node.nodes import Asked, ManualWriter, opened, turn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from haptera.node.node import Node
    from haptera.peer import Peer
    from haptera.replication import Writer

ID = bytes(range(16))


class Served:
    def __init__(self, node: Node) -> None:
        self.node = node
        self.service = KvService(node.commands, node.metrics, node.watches)
        self.peer = FakePeer()

    def handle(self, *requests: FakeRequest) -> None:
        self.service.handle([request.request for request in requests])

    def read_below(self, stream: int, peer: FakePeer | None = None) -> None:
        """A connection says that it has read the answers to its changes on streams below."""
        self.service.answers_read(cast("Peer", peer or self.peer), stream)

    async def ask(self, method: str, *argument: Any, **options: Any) -> FakeRequest:
        request = self.peer.request(method, *argument, **options)
        self.handle(request)
        while not request.answered:
            await asyncio.sleep(0)
        return request


@asynccontextmanager
async def served(writer: Writer | None = None) -> AsyncIterator[Served]:
    async with opened(writer=writer) as node:
        yield Served(node)


async def test_every_method_answers_as_the_specification_says() -> None:
    async with served() as store:
        for method, argument, result in (
            ("set", ["a", b"1"], [1, None]),
            ("set", ["a", b"2", {"if_version": 1, "return_previous": True}], [2, [b"1", 1, None]]),
            ("get", ["a"], [b"2", 2, None]),
            ("exists", ["a"], [True]),
            ("set_many", [[["b", b"x"], ["b", b"y"], ["c", b"z"]]], [3]),
            ("get_many", [["b", "none", "c"]], [[[b"y", 3, None], None, [b"z", 3, None]]]),
            ("count", [{"prefix": ""}], [3]),
            ("rename", ["c", "d"], [4]),
            ("increment", ["n", 5], [5, 5]),
            ("increment", ["n", -2], [3, 6]),
            ("delete", ["a", {"return_previous": True}], [True, 7, [b"2", 2, None]]),
            ("delete", ["a"], [False, None, None]),
            ("delete_many", [["b", "none"]], [1, 8]),
            ("clear", [{"prefix": "d"}], [1, 9]),
            ("clear", [{"prefix": "d"}], [0, None]),
        ):
            assert (await store.ask(method, *argument)).result == result, method


async def test_no_version_is_guesswork() -> None:
    """Trap: no version in answers. Each answer carries the revision that it saw, a change the one that it made."""
    async with served() as store:
        changes = [store.peer.request("set", f"k{number}", b"") for number in range(3)]
        store.handle(*changes)
        await turn()
        assert [request.revision for request in changes] == [1, 2, 3]
        assert (await store.ask("delete", "none")).revision == 3
        assert (await store.ask("delete", "k0")).revision == 4
        assert (await store.ask("get", "k1")).revision == 4
        assert (await store.ask("count")).revision == 4
        assert (await store.ask("scan")).revision == 4
        missing = await store.ask("get", "none")
        assert (missing.code, missing.entries) == (4001, {})


async def test_a_get_sent_after_a_set_is_answered_before_it() -> None:
    writer = ManualWriter()
    async with served(writer) as store:
        write, read = store.peer.request("set", "a", b"1"), store.peer.request("get", "a")
        store.handle(write, read)
        assert (read.answered, write.answered) == (True, False)
        await writer.write_all()
        assert write.result == [1, None]


async def test_a_batch_of_writes_is_answered_together_and_of_failures_each_by_itself() -> None:
    async with served() as store:
        requests = [
            store.peer.request("set", "a", b"1"),
            store.peer.request("set", "", b""),
            store.peer.request("nothing"),
            store.peer.request("set", "a"),
            store.peer.request("set", "a", b"2", {"if_version": 9}),
            store.peer.request("increment", "a", 1),
        ]
        store.handle(*requests)
        assert [request.answered for request in requests] == [False, False, True, True, False, False]
        await turn()
        assert requests[0].result == [1, None]
        assert [request.code for request in requests[1:5]] == [4006, 3002, 3003, 4002]
        assert requests[4].failure is not None
        assert requests[4].failure.details == {"key": "a", "expected": 9, "actual": 1}
        assert requests[5].result == [2, 2]
        assert store.node.metrics.kv_failures_total == 4


async def test_answering_stops_when_enough_waits_to_be_written_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies, "TOGETHER_SIZE", 1)
    async with served() as store:
        Asked(store.node, *(Set(f"k{number}", b"%d" % number) for number in range(6)))
        await turn()
        requests = [store.peer.request("get", f"k{number}") for number in range(5)]
        store.peer.room = 2
        store.handle(*requests)
        assert [request.answered for request in requests] == [True, True, False, False, False]
        Asked(store.node, Set("k3", b"new"))
        await turn()
        store.peer.make_room(1)
        assert [request.answered for request in requests] == [True, True, True, False, False]
        store.peer.make_room(9)
        assert [request.result[0] for request in requests] == [b"0", b"1", b"2", b"3", b"4"], "as they were read"


async def test_answers_are_given_together_as_far_as_they_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies, "TOGETHER_SIZE", 250)
    async with served() as store:
        Asked(store.node, Set("k", bytes(100)))
        await turn()
        requests = [store.peer.request("get", "k") for _ in range(5)]
        store.peer.room = 1
        store.handle(*requests)
        assert [request.answered for request in requests] == [True, True, True, False, False]
        store.peer.make_room(1)
        assert [request.result[0] for request in requests] == [bytes(100)] * 5


async def test_a_cancelled_write_that_is_not_with_the_disk_is_dropped_and_answered_at_once() -> None:
    writer = ManualWriter()
    async with served(writer) as store:
        handed = store.peer.request("set", "handed", b"")
        store.handle(handed)
        await turn()
        waiting = [store.peer.request("set", f"k{number}", b"") for number in range(3)]
        store.handle(*waiting)
        for request in (handed, waiting[0], waiting[2]):
            request.cancel()
        await turn()
        assert [request.answered for request in (handed, *waiting)] == [False, True, False, True]
        for request in (waiting[0], waiting[2]):
            assert request.failure is not None
            assert (request.code, request.failure.outcome) == (3006, "not_applied")
        await writer.write_all()
        assert handed.result == [1, None], "what is with the disk has its result"
        assert waiting[1].result == [2, None]
        assert (await store.ask("count")).result == [2]
        assert store.node.metrics.kv_failures_total == 2


async def test_an_answered_write_is_no_work_for_the_collector() -> None:
    async with served() as store:
        request = await store.ask("set", "a", b"")
        gone = weakref.ref(request)
        gc.disable()
        try:
            del request
            await turn()
            assert gone() is None
        finally:
            gc.enable()


async def test_a_write_that_was_dropped_may_be_sent_again_under_its_id() -> None:
    writer = ManualWriter()
    async with served(writer) as store:
        Asked(store.node, Set("keeps the disk busy", b""))
        await turn()
        dropped = store.peer.request("increment", "n", 1, request_id=ID)
        store.handle(dropped)
        dropped.cancel()
        await turn()
        again = store.peer.request("increment", "n", 1, request_id=ID)
        store.handle(again)
        await writer.write_all()
        assert (dropped.code, again.result, set(again.entries)) == (3006, [1, 2], {TAG_REVISION})


async def test_a_write_that_is_cancelled_after_its_answer_changes_nothing() -> None:
    async with served() as store:
        request = await store.ask("set", "a", b"")
        request.cancel()
        refused = store.peer.request("set", "", b"")
        store.handle(refused)
        refused.cancel()
        await turn()
        assert (request.result, refused.code) == ([1, None], 4006)


async def test_a_write_sent_again_is_answered_from_memory() -> None:
    async with served() as store:
        first = await store.ask("increment", "n", 1, request_id=ID)
        again = await store.ask("increment", "n", 1, request_id=ID)
        assert first.result == again.result == [1, 1]
        assert TAG_REPLAYED not in first.entries
        assert set(again.entries) == {TAG_REPLAYED, TAG_REVISION}
        assert (await store.ask("increment", "n", 2, request_id=ID)).code == 3012
        assert (await store.ask("set", "n", b"1", request_id=ID)).code == 3012
        assert store.node.metrics.kv_replayed_total == 1


async def test_without_the_capability_a_request_id_is_not_remembered() -> None:
    async with served() as store:
        store.peer.capabilities = frozenset({"pipelining"})
        for value in (1, 2):
            assert (await store.ask("increment", "n", 1, request_id=ID)).result == [value, value]


async def test_the_digest_tells_methods_and_arguments_apart() -> None:
    """The length-delimited parts: what is a method's name to one is not the beginning of an argument to another."""
    digests = {write_requests.digest_prefix("kv", method) for method in ("set", "set_many", "delete", "delete_many")}
    assert write_requests.digest_prefix("kv", "set") == b"\x02kv\x03set"
    assert len(digests) == 4


async def test_answers_that_were_read_are_forgotten() -> None:
    async with served() as store:
        ids = [bytes([number]) * 16 for number in range(3)]
        for request_id in ids:
            await store.ask("increment", "n", 1, request_id=request_id)
        third = store.peer.streams - 2
        store.read_below(third)
        remembered = [await store.ask("increment", "n", 1, request_id=request_id) for request_id in ids]
        assert [TAG_REPLAYED in request.entries for request in remembered] == [False, False, True]


async def test_a_replayed_answer_carries_the_version_of_its_change() -> None:
    async with served() as store:
        await store.ask("set", "k", b"1", request_id=ID)
        await store.ask("set", "k", b"2")
        replayed = await store.ask("set", "k", b"1", request_id=ID)
        assert set(replayed.entries) == {TAG_REPLAYED, TAG_REVISION}
        assert replayed.entries[TAG_REVISION] == (1).to_bytes(8, "big")


async def test_what_may_come_on_another_connection_too_is_not_forgotten_by_answered_below() -> None:
    async with served() as store:
        await store.ask("increment", "n", 1, request_id=ID, resent=True)
        await store.ask("increment", "n", 1, request_id=bytes(16))
        store.read_below(store.peer.streams)
        remembered = [await store.ask("increment", "n", 1, request_id=each) for each in (ID, bytes(16))]
        assert [TAG_REPLAYED in request.entries for request in remembered] == [True, False]


async def test_a_remembered_failure_is_told_as_replayed() -> None:
    async with served() as store:
        first = await store.ask("set", "k", b"1", {"if": "present"}, request_id=ID, resent=True)
        await store.ask("set", "k", b"2")
        again = await store.ask("set", "k", b"1", {"if": "present"}, request_id=ID)
        assert (first.code, again.code, again.entries) == (4001, 4001, {TAG_REPLAYED: b""})


async def test_one_connection_cannot_have_the_answers_of_another_forgotten() -> None:
    async with served() as store:
        await store.ask("increment", "n", 1, request_id=ID)
        other = FakePeer()
        store.read_below(1000, other)
        assert TAG_REPLAYED in (await store.ask("increment", "n", 1, request_id=ID)).entries


async def test_a_change_whose_answer_might_not_fit_is_refused_before_the_log() -> None:
    async with served() as store:
        store.peer.max_message = 8 << 20
        for method, argument in (("set", ["a", b"1"]), ("delete", ["a"])):
            refused = await store.ask(method, *argument, {"return_previous": True})
            assert refused.failure is not None
            assert (refused.code, refused.failure.outcome) == (3004, "not_applied")
        assert store.node.index == 0
        assert (await store.ask("set", "a", b"1", {"return_previous": False})).result == [1, None]


async def test_get_many_of_more_than_the_peer_takes_is_refused_before_it_is_encoded() -> None:
    async with served() as store:
        store.peer.max_message = 64 * 1024
        Asked(store.node, Set("a", bytes(10_000)))
        await turn()
        assert len((await store.ask("get_many", ["a"] * 6)).result[0]) == 6
        assert (await store.ask("get_many", ["a"] * 7)).code == 3004
        assert (await store.ask("get_many", ["a"] * 131_072)).code == 3004


async def test_get_many_is_no_larger_than_a_command_whatever_the_peer_takes() -> None:
    """A request of a few bytes names a large value a hundred times."""
    async with served() as store:
        store.peer.max_message = 1 << 30
        await store.ask("set", "a", bytes(1 << 20))
        assert len((await store.ask("get_many", ["a"] * 15)).result[0]) == 15
        assert (await store.ask("get_many", ["a"] * 16)).code == 3004


async def fill(store: Served, count: int, size: int = 4) -> None:
    Asked(store.node, *(Set(f"k{number:05}", bytes(size)) for number in range(count)))
    await turn()


async def test_a_scan_sends_pages_and_ends_with_count_last_key_and_revision() -> None:
    async with served() as store:
        await fill(store, 100, 4096)
        scan = await store.ask("scan", {"limit": 50})
        assert len(scan.items) > 1
        assert all(sum(len(row[1]) for row in page) <= PAGE_SIZE_MAX for page in scan.items)
        rows = [row for page in scan.items for row in page]
        assert rows == [[f"k{number:05}", bytes(4096), number + 1, None] for number in range(50)]
        assert scan.result == [50, "k00049", 100]


async def test_the_pages_of_a_scan_are_small_while_a_write_waits_for_the_disk() -> None:
    """A write waits for several slices."""
    writer, rows = ManualWriter(), 2 * HURRIED_ROWS_MAX
    async with served(writer) as store:
        Asked(store.node, SetMany([(f"k{number:05}", b"") for number in range(rows)]))
        await writer.write_all()
        await store.node.drain()  # it is answered in turns
        assert [len(page) for page in (await store.ask("scan")).items] == [rows]
        Asked(store.node, Set("a", b""))
        await turn()
        scan = store.peer.request("scan")
        store.handle(scan)
        while scan.payload_answered is None:
            await asyncio.sleep(0)
        assert [len(page) for page in scan.items] == [HURRIED_ROWS_MAX] * 2
        await writer.write_all()
        assert [len(page) for page in (await store.ask("scan")).items] == [rows + 1]


async def test_a_row_larger_than_a_page_is_a_page() -> None:
    async with served() as store:
        Asked(store.node, Set("a", b""), Set("b", bytes(PAGE_SIZE_MAX + 1)), Set("c", b""))
        await turn()
        scan = await store.ask("scan")
        assert [[row[0] for row in page] for page in scan.items] == [["a"], ["b"], ["c"]]


async def test_keys_only_gives_rows_of_the_same_shape_without_values() -> None:
    async with served() as store:
        await fill(store, 2)
        scan = await store.ask("scan", {"keys_only": True})
        assert scan.items == [[["k00000", None, 1, None], ["k00001", None, 2, None]]]


async def test_an_empty_scan_sends_no_page() -> None:
    async with served() as store:
        scan = await store.ask("scan", {"prefix": "none"})
        assert (scan.items, scan.result) == ([], [0, None, 0])


def open_scans(store: Served) -> float:
    return store.node.metrics.values()["scans_open"]


async def blocked_scan(store: Served) -> FakeRequest:
    await fill(store, 100, 4096)
    scan = store.peer.request("scan")
    scan.blocked = asyncio.Event()
    store.handle(scan)
    await turn()
    assert (len(scan.items), open_scans(store)) == (1, 1)
    return scan


async def test_a_cancelled_scan_is_answered_and_lets_its_revision_go() -> None:
    async with served() as store:
        scan = await blocked_scan(store)
        assert scan.on_cancel is not None
        scan.on_cancel()
        await turn()
        assert scan.failure is not None
        assert (scan.code, scan.failure.outcome, open_scans(store)) == (3006, "not_applied", 0)


async def test_a_scan_of_a_lost_connection_lets_its_revision_go() -> None:
    async with served() as store:
        scan = await blocked_scan(store)
        assert scan.blocked is not None
        scan.lost = True
        scan.blocked.set()
        for _ in range(10):
            await turn()
        assert (scan.answered, open_scans(store)) == (False, 0)


async def test_a_scan_that_nobody_reads_is_answered_with_4009() -> None:
    async with served() as store:
        scan = await blocked_scan(store)
        scans = store.node.commands._scans
        now = scans.time()
        scans.time = lambda: now + PROGRESS_TIMEOUT_S
        scans.sweep()
        await turn()
        assert (scan.code, open_scans(store)) == (4009, 0)
        assert scan.failure is not None
        assert scan.failure.details == {"revision": store.node.revision}


async def test_trap_a_cursor_that_is_an_offset_into_a_re_sorted_list() -> None:
    """What is written and deleted while a scan waits changes nothing of what it gives."""
    async with served() as store:
        scan = await blocked_scan(store)
        assert scan.blocked is not None
        before = store.node.revision
        await store.ask("set", "a-new-first-key", b"")
        await store.ask("delete_many", [f"k{number:05}" for number in range(0, 100, 2)])
        scan.blocked.set()
        while not scan.answered:
            await asyncio.sleep(0)
        assert [row[0] for page in scan.items for row in page] == [f"k{number:05}" for number in range(100)]
        assert scan.result == [100, "k00099", before]


async def test_a_scan_in_a_batch_does_not_hold_up_the_others() -> None:
    async with served() as store:
        await fill(store, 10)
        scan, read = store.peer.request("scan"), store.peer.request("get", "k00001")
        store.handle(scan, read)
        assert (scan.answered, read.answered) == (False, True)
        await turn()
        assert scan.result == [10, "k00009", 10]


async def test_an_invalid_scan_is_refused() -> None:
    async with served() as store:
        assert (await store.ask("scan", {"limit": -1})).code == 3003
        assert (await store.ask("scan", {"page": 1})).code == 3003


async def test_a_count_that_looks_at_each_key_lets_others_have_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served() as store:
        await fill(store, 100)
        monkeypatch.setattr(limits, "SLICE_WORK_MAX", 10)
        monkeypatch.setattr(slice_queue, "TURN_WORK_MAX", 1)
        counting, read = store.peer.request("count", {"glob": "k*7"}), store.peer.request("get", "k00001")
        store.handle(counting, read)
        assert (counting.answered, read.answered) == (False, True)
        await turn()
        assert (counting.answers, open_scans(store)) == (0, 1)
        await store.ask("set", "k00107", b"not of the revision that is counted")
        while not counting.answered:
            await asyncio.sleep(0)
        assert (counting.result, counting.revision, open_scans(store)) == ([10], 100, 0)
        assert (await store.ask("count", {"glob": "k*7"})).result == [11]


async def test_a_count_of_a_prefix_is_answered_at_once() -> None:
    async with served() as store:
        await fill(store, 3)
        requests = [store.peer.request("count", {"glob": "k*"}), store.peer.request("count", {"prefix": "k"})]
        store.handle(*requests)
        assert [request.result for request in requests] == [[3], [3]]


@pytest.mark.parametrize("passed", [0, 1])
async def test_a_cancelled_count_is_answered_and_lets_its_revision_go(
    passed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SLICE_WORK_MAX", 1)
    async with served() as store:
        await fill(store, 100)
        counting = store.peer.request("count", {"glob": "*7"})
        store.handle(counting)
        for _ in range(passed):
            await asyncio.sleep(0)
        counting.cancel()
        await turn()
        assert counting.failure is not None
        assert (counting.code, counting.failure.outcome, open_scans(store)) == (3006, "not_applied", 0)


async def test_a_count_that_cannot_be_opened_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served() as store:
        assert (await store.ask("count", {"glob": "[z-a]"})).code == 3003
        monkeypatch.setattr(limits, "CURSORS_MAX", 0)
        assert (await store.ask("count", {"glob": "a*z"})).code == 3007


async def test_one_connection_cannot_have_all_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scans, "SCANS_PER_OWNER_MAX", 2)
    async with served() as store:
        blocked = [await blocked_scan(store), store.peer.request("scan")]
        blocked[1].blocked = asyncio.Event()
        store.handle(blocked[1])
        await turn()
        assert (await store.ask("count", {"glob": "k*3"})).code == 3007
        scan = store.peer.request("scan")
        store.handle(scan)
        await turn()
        assert (scan.code, open_scans(store)) == (3007, 2)
        scan = FakePeer().request("scan")
        store.handle(scan)
        while not scan.answered:
            await turn()
        assert scan.failure is None
        for each in blocked:
            each.cancel()
        await turn()
        assert (await store.ask("count", {"glob": "*3"})).result == [10]


async def test_a_scan_that_is_cancelled_before_its_first_page_gives_none() -> None:
    async with served() as store:
        await fill(store, 3)
        scan = store.peer.request("scan")
        store.handle(scan)
        scan.cancel()
        await turn()
        assert (scan.code, scan.items, open_scans(store)) == (3006, [], 0)


TTL = frozenset({"pipelining", "idempotency", "kv_ttl"})


async def ask_as(store: Served, peer: FakePeer, method: str, *argument: Any, **options: Any) -> FakeRequest:
    """A request on a connection of its own."""
    store.peer = peer
    return await store.ask(method, *argument, **options)


def details(refused: FakeRequest) -> dict[str, Any]:
    assert refused.failure is not None
    return refused.failure.details


async def test_a_connection_without_kv_ttl_is_not_told_when_keys_expire() -> None:
    """Version 1 of the service has nil in that place."""
    async with served() as store:
        told, untold = FakePeer(capabilities=TTL), FakePeer()
        await ask_as(store, told, "set", "a", b"1", {"ttl_ms": 60_000})
        expires = (await ask_as(store, told, "get", "a")).result[2]
        assert expires > 60_000
        assert (await ask_as(store, untold, "get", "a")).result == [b"1", 1, None]
        assert (await ask_as(store, untold, "get_many", ["a", "b"])).result == [[[b"1", 1, None], None]]
        many = ["a"] * 1000
        assert (await ask_as(store, untold, "get_many", many)).result == [[[b"1", 1, None]] * 1000]
        assert (await ask_as(store, told, "get_many", many)).result == [[[b"1", 1, expires]] * 1000]
        (page,) = (await ask_as(store, untold, "scan")).items
        assert page == [["a", b"1", 1, None]]
        answer = await ask_as(store, untold, "delete", "a", {"return_previous": True})
        assert answer.result == [True, 2, [b"1", 1, None]]


async def test_a_connection_without_kv_ttl_has_none_of_its_methods_and_options() -> None:
    async with served() as store:
        peer = FakePeer(capabilities=frozenset({"kv_transact"}))
        for method in ("expire", "ttl", "get_and_expire", "get_and_delete"):
            refused = await ask_as(store, peer, method, "a", 5)
            assert (refused.code, details(refused)["capability"]) == (3002, "kv_ttl")
        for option in ({"ttl_ms": 5}, {"keep_ttl": True}, {"keep_ttl": 1}):
            refused = await ask_as(store, peer, "set", "a", b"", option)
            assert (refused.code, details(refused)) == (3003, {"unknown": next(iter(option))})
        inside = await ask_as(store, peer, "transact", [], [["set", ["a", b"", {"ttl_ms": 5}]]])
        assert (inside.code, details(inside)["unknown"]) == (3003, "ttl_ms")
        inside = await ask_as(store, peer, "transact", [], [["expire", ["a", 5]]])
        assert (inside.code, details(inside)["unknown"]) == (3003, "expire")


async def test_an_expire_in_the_node_is_no_method() -> None:
    async with served() as store:
        refused = await ask_as(store, FakePeer(capabilities=TTL), "expire_due", ["a"])
        assert refused.code == 3002


async def test_a_get_and_delete_says_at_which_revision_it_was_also_when_it_is_repeated() -> None:
    async with served() as store:
        peer = FakePeer(capabilities=TTL)
        await ask_as(store, peer, "set", "a", b"1")
        first = await ask_as(store, peer, "get_and_delete", "a", request_id=bytes(16))
        await ask_as(store, peer, "set", "b", b"1")
        again = await ask_as(store, peer, "get_and_delete", "a", request_id=bytes(16))
        assert first.result == again.result == [b"1", 1, None, 2]
        assert first.revision == again.revision == 2
