"""Maintenance of a node: changes are refused before the log, and wherever they stand in it, also after a restart."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import haptera
from haptera.errors import Failure, MaintenanceMode
from haptera.node.commands import Envelope
from haptera.node.health import health
from haptera.node.services.server import ServerService, status
from haptera.node.snapshots.keeper import Current
from haptera.state.node_operations import SetMaintenance
from haptera.state.operations import Delete, Get, GrantLease, RenewLease, Set, Transact
from haptera.testing import MemoryFileSystem
from haptera.testing import node as served
from tests.unit.node.doubles import FakePeer
from tests.unit.node.nodes import Asked, ManualWriter, done, fill_disk, opened, turn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haptera.node.node import Node

ON, OFF = SetMaintenance(True, "move"), SetMaintenance(False)


def codes(results: Sequence[object]) -> list[int]:
    return [result.code if isinstance(result, Failure) else 0 for result in results]


async def ask(node: Node, *argument: object, peer: FakePeer | None = None) -> Any:
    """The answer of `server.maintenance`, or the failure."""
    request = (peer or FakePeer()).request("maintenance", *argument, service="server")
    ServerService(node).handle([request.request])
    while not request.answered:
        await turn()
    return request.failure if request.failure is not None else request.result


async def test_the_method_begins_tells_and_ends_maintenance() -> None:
    async with opened(clock_ms=lambda: 1_700_000_000_000) as node:
        off = {"on": False, "reason": "", "since_ms": None}
        on = {"on": True, "reason": "move", "since_ms": 1_700_000_000_000}
        assert await ask(node) == off
        assert await ask(node, {"on": True, "reason": "move"}) == on
        assert await ask(node) == await ask(node, {"on": True, "reason": "move"}) == on
        assert codes(await done(node, Set("a", b""))) == [5004]
        assert await ask(node, {"on": False}) == off == await ask(node, {"on": False})
        assert codes(await done(node, Set("a", b""))) == [0]


@pytest.mark.parametrize(
    "argument",
    [
        ({"on": True},),
        ({"on": True, "reason": ""},),
        ({"on": True, "reason": "a\nb"},),
        ({"on": False, "reason": "move"},),
        ({"reason": "move"},),
        ({"on": 1, "reason": "move"},),
        ({"on": True, "reason": "move", "until": 5},),
        (True, "move"),
    ],
    ids=repr,
)
async def test_an_argument_that_is_none_changes_nothing(argument: tuple[Any, ...]) -> None:
    async with opened() as node:
        refused = await ask(node, *argument)
        assert isinstance(refused, Failure)
        assert (refused.code, refused.outcome) == (3003, "not_applied")
        assert node.maintenance is None


async def test_a_caller_without_the_permission_neither_changes_nor_learns_anything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from haptera.node.commands import Submitter

    asked: list[str] = []

    def lacks(_: Submitter, permission: str) -> Failure:
        asked.append(permission)
        return haptera.errors.failure(2004, outcome="not_applied")

    monkeypatch.setattr(Submitter, "lacks", lacks)
    async with opened() as node:
        for argument in ((), ({"on": True, "reason": "move"},), ("malformed",)):
            refused = await ask(node, *argument)
            assert isinstance(refused, Failure)
            assert refused.code == 2004
        assert node.maintenance is None
        assert asked == ["admin"] * 3


async def test_a_refused_change_makes_no_entry_whatever_is_on_its_way() -> None:
    writer = ManualWriter()
    async with opened(writer=writer) as node:
        first = Asked(node, Set("a", b"1"), ON)
        await writer.write_all()
        assert codes(first.results) == [0, 0]
        index = node.index
        way = Asked(node, Transact([], [Get("a")]), Envelope(Set("b", b""), bytes(16), bytes(32), True))
        refused = Asked(node, Set("b", b""), Delete("a"), GrantLease(1000), Get("a"), RenewLease([1]))
        assert refused.answered
        assert codes(refused.results) == [5004, 5004, 5004, 0, 0]
        await writer.write_all()
        assert codes(way.results) == [0, 5004]
        assert node.index == index + 1
        assert codes([*Asked(node, Set("b", b"")).results]) == [5004]
        assert not writer.jobs


async def test_a_change_behind_the_beginning_in_the_log_is_refused_and_one_behind_the_end_is_made() -> None:
    writer = ManualWriter()
    async with opened(writer=writer) as node:
        asked = Asked(node, Set("a", b""), ON, Set("b", b""))
        await writer.write_all()
        assert codes(asked.results) == [0, 0, 5004]
        ended = Asked(node, OFF, Set("c", b""))
        await writer.write_all()
        assert codes(ended.results) == [0, 0]
        assert node.keys == 2


async def test_maintenance_survives_a_power_failure_and_a_snapshot(caplog: pytest.LogCaptureFixture) -> None:
    fs = MemoryFileSystem()
    async with opened(fs) as node:
        assert await ask(node, {"on": True, "reason": "move"}) != {}
        began = node.maintenance
        after = fs.power_failure("drop", seed=0)
    async with opened(after) as again:
        assert again.maintenance == began
        assert codes(await done(again, Set("a", b""))) == [5004]
        assert isinstance(await again.snapshots.request(), Current)
    [told] = [record for record in caplog.records if record.message == "maintenance_goes_on"]
    assert (vars(told)["reason"], told.levelno) == ("move", logging.WARNING)
    async with opened(after) as again:
        assert again.maintenance == began
        assert await done(again, OFF) == [(True,)]
    async with opened(after) as again:
        assert again.maintenance is None


async def test_status_health_and_metrics_tell_it_and_the_log_who_began_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "haptera")
    async with opened() as node:
        assert status(node)["maintenance"] is False
        assert node.metrics.values()["maintenance"] == 0
        await ask(node, {"on": True, "reason": "move"})
        assert node.maintenance is not None
        found = health(node)
        assert found.state == "maintenance"
        assert "move" in found.reason
        assert found.since_ms == node.maintenance.since_ms
        assert (status(node)["maintenance"], status(node)["health"]) == (True, "maintenance")
        assert node.metrics.values()["maintenance"] == 1
        for argument in ({"on": True, "reason": "move"}, {"on": False}, {"on": False}):
            await ask(node, argument)
        assert health(node).state == "ok"
    told = [record.message for record in caplog.records if record.message.startswith("maintenance")]
    assert told == ["maintenance_began", "maintenance_ended"]


async def test_maintenance_ends_on_a_full_disk_so_that_deletes_make_room() -> None:
    fs = MemoryFileSystem()
    async with opened(fs) as node:
        assert codes(await done(node, ON)) == [0]
        assert codes(await done(node, OFF, Set("a", bytes(1000)))) == [0, 0]
        await fill_disk(node, fs)
        assert codes(await done(node, ON)) == [0]
        assert codes(await done(node, Delete("a"))) == [5004]
        assert codes(await done(node, OFF)) == [0]
        assert codes(await done(node, Delete("a"))) == [0]
        fs.failing = frozenset()


async def test_keys_expire_during_maintenance() -> None:
    now = [1_700_000_000_000]
    async with opened(clock_ms=lambda: now[0], monotonic_ns=lambda: now[0] * 1_000_000) as node:
        assert codes(await done(node, Set("a", b"", ttl_ms=50), ON)) == [0, 0]
        now[0] += 100
        node.expiry._wake()
        await turn()
        await node.drain()
        assert node.keys == 0


async def test_a_client_is_told_at_once_and_does_not_try_again() -> None:
    async with served(storage="memory") as url, haptera.connect(url) as db:
        began = await db.begin_maintenance("move")
        assert (began.on, began.reason) == (True, "move")
        assert await db.maintenance() == began
        with pytest.raises(MaintenanceMode) as refused:
            await db.set("a", b"")
        assert (refused.value.outcome, refused.value.details) == ("not_applied", {"reason": "move"})
        assert (await db.status())["health"] == "maintenance"
        async with haptera.dial(url) as peer:
            metrics = msgspec.msgpack.decode(await peer.call("server", "metrics", b"\x90"))
        assert metrics['requests_total{method="kv.set"}'] == 1
        assert (await db.end_maintenance()).on is False
        await db.set("a", b"")


async def test_an_embedded_store_has_maintenance_too(tmp_path: Any) -> None:
    async with haptera.open(tmp_path / "data") as db:
        assert (await db.begin_maintenance("move")).on
        with pytest.raises(MaintenanceMode):
            await db.set("a", b"")
        with pytest.raises(haptera.errors.InvalidArgument):
            await db.begin_maintenance("")
    async with haptera.open(tmp_path / "data") as db:
        assert (await db.maintenance()).reason == "move"
        assert not (await db.end_maintenance()).on
        await db.set("a", b"")
