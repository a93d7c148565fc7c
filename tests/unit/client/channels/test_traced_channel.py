"""Spans and durations of a database's calls, as the SDK of OpenTelemetry records them."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import haptera
import haptera.sync
from haptera import Database, Request, Service, method
from haptera.client import connect
from haptera.client.channels.remote_channel import RemoteChannel
from haptera.errors import ConnectionLost
from haptera.testing import node, proxy, virtual_clock
from haptera.testing.nodes import node_in_thread

trace = pytest.importorskip("opentelemetry.trace", reason="the development environment is not complete")
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF  # noqa: E402

from tests.support.spans import Spans, follows, ids  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

    from opentelemetry.sdk.trace import ReadableSpan

DURATION = "db.client.operation.duration"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    return Spans(monkeypatch)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


@virtual_clock
async def test_a_call_has_one_span_here_and_the_nodes_span_is_behind_it(spans: Spans) -> None:
    async with node(storage="memory", listen="tcp") as url, connect(url) as db:
        await db.set("a", "1")
        await db.get("a")
    port = int(url.partition("?")[0].rpartition(":")[2])
    for operation in ("set", "get"):
        client = spans.one(f"{operation} kv", "CLIENT")
        assert attributes(client) == {
            "db.system.name": "haptera",
            "db.namespace": "kv",
            "db.operation.name": operation,
            "server.address": "127.0.0.1",
            "server.port": port,
        }
        assert client.status.is_unset
        assert follows(spans.one(f"kv/{operation}", "SERVER"), client)
        assert spans.named(f"kv/{operation}", "CLIENT") == []


@virtual_clock
async def test_each_call_is_counted_with_its_duration(spans: Spans) -> None:
    async with node(storage="memory", listen="tcp") as url, connect(url) as db:
        await db.set("a", "1")
        for _ in range(3):
            await db.get("a")
        with pytest.raises(haptera.VersionMismatch):
            await db.set("a", "2", if_version=9)
    counts = {}
    for point in spans.points(DURATION):
        told = dict(point.attributes or {})
        counts[told["db.operation.name"], told.get("error.type")] = point.count
        assert list(point.explicit_bounds) == [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0]
    assert counts == {("set", None): 1, ("get", None): 3, ("set", "VERSION_MISMATCH"): 1}


@virtual_clock
async def test_a_refusal_is_an_error_and_a_missing_key_is_not(spans: Spans) -> None:
    async with node(storage="memory", listen="tcp") as url, connect(url) as db:
        await db.set("a", "1")
        spans.exporter.clear()
        with pytest.raises(haptera.VersionMismatch):
            await db.set("a", "2", if_version=9)
        assert await db.get("none") is None
    refused, missing = spans.one("set kv", "CLIENT"), spans.one("get kv", "CLIENT")
    assert (attributes(refused)["error.type"], attributes(refused)["db.response.status_code"]) == (
        "VERSION_MISMATCH",
        str(int(haptera.Code.VERSION_MISMATCH)),
    )
    assert refused.status.status_code is trace.StatusCode.ERROR
    assert attributes(missing)["db.response.status_code"] == str(int(haptera.Code.KEY_NOT_FOUND))
    for span in (missing, spans.one("kv/get", "SERVER")):
        assert "error.type" not in attributes(span)
        assert span.status.is_unset
    assert attributes(spans.one("kv/set", "SERVER"))["error.type"] == "VERSION_MISMATCH"


@virtual_clock
async def test_a_batch_says_its_size_and_one_operation_is_no_batch(spans: Spans) -> None:
    async with node(storage="memory", listen="tcp") as url, connect(url) as db:
        await db.set_many({"a": "1", "b": "2", "c": "3"})
        await db.get_many(["a", "b"])
        await db.delete_many(["a"])
        await db.transact(compare=[("b", "exists", "=", True)], then=[("get", ["b"]), ("delete", ["c"])])
    sizes = {
        name: attributes(spans.one(f"{name} kv", "CLIENT")).get("db.operation.batch.size")
        for name in ("set_many", "get_many", "delete_many", "transact")
    }
    assert sizes == {"set_many": 3, "get_many": 2, "delete_many": None, "transact": 2}


@virtual_clock
async def test_a_call_that_is_cancelled_or_lost_ends_its_span_with_an_error(spans: Spans) -> None:
    class Silent(Service):
        name = "kv"

        @method
        async def get(self, request: Request) -> bytes:
            await asyncio.sleep(3600)
            return b""

    async with haptera.listen("haptera://127.0.0.1:0", services=[Silent()]) as server, connect(server.url) as db:
        call = asyncio.create_task(db.get("a"))
        await asyncio.sleep(0.5)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        with pytest.raises(haptera.DeadlineExceeded):
            await db.get("a", timeout=0.5)
    with pytest.raises(ConnectionLost):
        await connect(server.url, wait=False).get("a")
    errors = [attributes(span)["error.type"] for span in spans.named("get kv", "CLIENT")]
    assert errors == ["CANCELLED", "DEADLINE_EXCEEDED", "ConnectionLost"]
    assert all(span.status.status_code is trace.StatusCode.ERROR for span in spans.named("get kv", "CLIENT"))
    assert trace.get_current_span() is trace.INVALID_SPAN


@virtual_clock
async def test_a_call_that_is_sent_again_has_one_span(spans: Spans) -> None:
    async with node(storage="memory", listen="tcp") as url, proxy(url) as through, connect(through.url) as db:
        await db.set("n", "0")
        spans.exporter.clear()
        through.sever_after(3)
        for _ in range(9):
            await db.increment("n")
        assert through.severed > 0
    assert len(spans.named("increment kv", "CLIENT")) == 9
    for served in spans.named("kv/increment", "SERVER"):
        assert any(follows(served, client) for client in spans.named("increment kv", "CLIENT"))


@virtual_clock
async def test_a_scan_has_a_span_until_its_end_and_one_that_is_left_is_no_error(spans: Spans) -> None:
    async with node(storage="memory", listen="tcp") as url, connect(url) as db:
        await db.set_many({f"k{number:04}": "v" * 100 for number in range(2000)})
        spans.exporter.clear()
        assert len([entry async for entry in db.scan()]) == 2000
        assert follows(spans.one("kv/scan", "SERVER"), spans.one("scan kv", "CLIENT"))
        async with db.scan() as scan:
            await anext(aiter(scan))
            assert trace.get_current_span() is trace.INVALID_SPAN  # the program's own code runs
            assert len(spans.named("scan kv", "CLIENT")) == 1
    finished, left = spans.named("scan kv", "CLIENT")
    assert finished.status.is_unset
    assert left.status.is_unset
    assert [
        point.count for point in spans.points(DURATION) if dict(point.attributes or {})["db.operation.name"] == "scan"
    ] == [2]


@virtual_clock
async def test_a_watch_has_a_span_until_it_is_left_or_cancelled_and_no_duration(spans: Spans) -> None:
    async with node(storage="memory", listen="tcp") as url, connect(url) as db:

        async def follow() -> None:
            async for _ in db.watch(prefix="a"):
                seen.set()

        seen = asyncio.Event()
        following = asyncio.create_task(follow())
        await asyncio.sleep(0.5)
        await db.set("a", "1")
        await seen.wait()
        assert spans.named("watch kv", "CLIENT") == []
        following.cancel()
        await asyncio.wait((following,))
        assert spans.one("watch kv", "CLIENT").status.is_unset
        with pytest.raises(haptera.errors.RevisionCompacted):
            async for _ in db.watch(start_revision=10**9):
                pass
    assert attributes(spans.named("watch kv", "CLIENT")[1])["error.type"] == "REVISION_COMPACTED"
    assert {dict(point.attributes or {})["db.operation.name"] for point in spans.points(DURATION)} == {"set"}


@virtual_clock
async def test_calls_of_a_handler_are_behind_its_span(spans: Spans) -> None:
    class Counter(Service):
        name = "counter"

        def __init__(self, db: Database) -> None:
            self.db = db

        @method
        async def count(self, request: Request) -> bytes:
            return str(await self.db.increment("n")).encode()

    async with (
        node(storage="memory", listen="tcp") as url,
        connect(url) as db,
        haptera.listen("haptera://127.0.0.1:0", services=[Counter(db)]) as server,
        haptera.dial(server.url) as peer,
    ):
        assert await peer.call("counter", "count") == b"1"
    chain = [
        spans.one("counter/count", "CLIENT"),
        spans.one("counter/count", "SERVER"),
        spans.one("increment kv", "CLIENT"),
        spans.one("kv/increment", "SERVER"),
    ]
    assert all(follows(span, parent) for parent, span in itertools.pairwise(chain))
    assert len({ids(span)[0] for span in chain}) == 1


@virtual_clock
async def test_a_span_of_the_program_is_the_parent_of_its_calls(spans: Spans) -> None:
    async with node(storage="memory", listen="tcp") as url, connect(url) as db:
        with trace.get_tracer("test").start_as_current_span("outside") as outside:
            await db.get("a")
    assert follows(spans.one("get kv", "CLIENT"), outside)


def test_calls_of_threads_are_behind_the_spans_of_their_threads(spans: Spans) -> None:
    with (
        node_in_thread(storage="memory", listen="tcp") as url,
        haptera.sync.connect(url) as db,
        trace.get_tracer("test").start_as_current_span("outside") as outside,
    ):
        db.set("a", "1")
        assert [entry.key for entry in db.scan()] == ["a"]
    assert follows(spans.one("set kv", "CLIENT"), outside)
    assert follows(spans.one("scan kv", "CLIENT"), outside)


async def test_a_store_in_this_process_has_spans_without_a_server(spans: Spans, tmp_path: Path) -> None:
    async with haptera.open(tmp_path / "data") as db:
        await db.set("a", "1")
        assert db.revision == 1
    span = spans.one("set kv", "INTERNAL")
    assert not [name for name in attributes(span) if name.startswith("server.")]


@virtual_clock
async def test_a_call_that_is_not_sampled_is_measured(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    spans.use(monkeypatch, ALWAYS_OFF)
    async with node(storage="memory", listen="tcp") as url, connect(url) as db:
        await db.get("a")
    assert spans.exporter.get_finished_spans() == ()
    assert [point.count for point in spans.points(DURATION)] == [1]


async def test_a_database_has_its_channel_as_it_is_where_no_provider_is_set_up() -> None:
    async with connect("haptera://127.0.0.1:1") as db:
        assert type(db._channel) is RemoteChannel


def test_a_program_without_opentelemetry_loads_none_of_it() -> None:
    program = """
import sys, haptera
db = haptera.connect("haptera://127.0.0.1:1")
assert type(db._channel).__name__ == "RemoteChannel"
assert not [name for name in sys.modules if name.startswith("opentelemetry") or name.endswith("traced_channel")]
"""
    subprocess.run([sys.executable, "-c", program], check=True)
