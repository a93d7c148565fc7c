"""The audit log beside the loop: batches, waiting for the disk, administration that cannot be recorded."""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING, Any

from haptera.node.audit import audit as module
from haptera.node.audit.audit import NOTE_INTERVAL_S, RETRY_S, Audit
from haptera.node.audit.event import AuditCaller
from haptera.node.audit.repetitions import ALIKE_MAX, FOLD_S, LINES_BURST
from haptera.node.metrics import Metrics
from haptera.testing import virtual_clock
from tests.unit.node.audit.logs import event, lines, log_on, methods, new_files, verified
from tests.unit.node.nodes import turn

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from haptera.node.audit.event import AuditEvent
    from haptera.testing.filesystem import MemoryFileSystem


class Disk:
    """Runs the jobs of the writer when the test says so."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Callable[[], Any], asyncio.Future[Any]]] = []
        self.runs = 0

    def __call__(self, job: Callable[[], Any]) -> asyncio.Future[Any]:
        told = asyncio.get_running_loop().create_future()
        self.jobs.append((job, told))
        return told

    async def work(self) -> None:
        await turn()
        while self.jobs:
            job, told = self.jobs.pop(0)
            self.runs += 1
            told.set_result(job())
            await turn()


def made(fs: MemoryFileSystem) -> tuple[Audit, Disk]:
    disk = Disk()
    return Audit(log_on(fs), disk, asyncio.get_running_loop(), lambda: 7, lambda: 9_000, Metrics()), disk


async def test_all_that_waits_for_the_disk_is_written_together() -> None:
    fs = new_files()
    audit, disk = made(fs)
    audit.record(event(0))
    await turn()
    for number in range(1, 50):
        audit.record(event(number))
    await disk.work()
    assert disk.runs == 2
    assert sum(1 for name, _ in fs.calls if name == "fdatasync") == 2
    assert [line["time"] for line in lines(fs)[1:]] == list(range(50))
    assert (audit.waiting, audit._metrics.audit_lines_total) == (0, 50)


async def test_administration_is_told_when_its_line_is_synced() -> None:
    fs = new_files()
    audit, disk = made(fs)
    told = audit.synced(event(kind="administration"))
    await turn()
    assert not told.done()
    await disk.work()
    assert told.result() is None
    assert len(lines(fs.power_failure("drop"))) == 2


def full(fs: MemoryFileSystem, number: int = errno.ENOSPC) -> None:
    fs.failing, fs.fail_with = frozenset({"pwrite"}), number


@virtual_clock
async def test_on_a_full_disk_administration_is_refused_and_a_denial_waits_for_room() -> None:
    fs = new_files()
    audit, disk = made(fs)
    audit.record(event(1))
    await disk.work()
    full(fs)
    begun = audit.synced(event(2, kind="administration"))
    audit.record(event(3, kind="denied"))
    await disk.work()
    refused = begun.result()
    assert refused is not None
    assert (refused.code, refused.outcome) == (5002, "not_applied")
    assert audit.trouble
    audit.record(event(4, kind="denied"))
    await disk.work()
    assert disk.runs == 2
    fs.failing = frozenset()
    await asyncio.sleep(RETRY_S)
    await disk.work()
    assert [line["time"] for line in lines(fs)[1:]] == [1, 2, 3, 4]
    assert (audit.trouble, audit._metrics.audit_lost_total) == ("", 0)


@virtual_clock
async def test_administration_tries_a_full_disk_at_once() -> None:
    fs = new_files()
    audit, disk = made(fs)
    full(fs)
    audit.record(event(1))
    await disk.work()
    fs.failing = frozenset()
    told = audit.synced(event(2, kind="administration"))
    await disk.work()
    assert told.result() is None
    assert verified(fs).lines == 3


@virtual_clock
async def test_the_head_is_noted_elsewhere_within_a_minute_and_only_if_it_is_another() -> None:
    fs = new_files()
    audit, disk = made(fs)
    noted: list[tuple[int, bytes]] = []
    audit.note_head = lambda sequence, digest: noted.append((sequence, digest))
    for number in range(3):
        audit.record(event(number))
        await disk.work()
    assert noted == []
    await asyncio.sleep(NOTE_INTERVAL_S)
    assert noted == [tuple(audit.head)]
    await asyncio.sleep(10 * NOTE_INTERVAL_S)
    audit.record(event(4))
    await disk.work()
    assert len(noted) == 1
    await asyncio.sleep(NOTE_INTERVAL_S)
    assert noted[1:] == [tuple(audit.head)]


async def next_job(disk: Disk) -> tuple[Callable[[], Any], asyncio.Future[Any]]:
    while not disk.jobs:
        await asyncio.sleep(0)
    return disk.jobs.pop(0)


async def test_after_a_failed_disk_administration_is_refused_at_once_and_the_rest_is_counted() -> None:
    fs = new_files()
    audit, disk = made(fs)
    full(fs, errno.EIO)
    begun = audit.synced(event(kind="administration"))
    audit.record(event(kind="denied"))
    await disk.work()
    refused = begun.result()
    assert refused is not None
    assert (refused.code, refused.outcome) == (5001, "not_applied")
    fs.failing = frozenset()
    again = audit.synced(event(kind="administration"))
    assert again.done()
    assert again.result() == refused
    audit.record(event(kind="denied"))
    await disk.work()
    assert audit._metrics.audit_lost_total == 4
    assert disk.runs == 1


async def test_events_beyond_the_room_are_counted_and_a_line_has_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING_MAX", 4)
    monkeypatch.setattr(module, "EXPENDABLE_WAITING_MAX", 3)
    fs = new_files()
    audit, disk = made(fs)
    for _ in range(5):
        audit.record(event(kind="data"))
    for _ in range(3):
        audit.record(event(kind="denied"))
    over = audit.synced(event(kind="administration"))
    refused = over.result()
    assert refused is not None
    assert (refused.code, refused.outcome) == (3007, "not_applied")
    await disk.work()
    assert methods(fs) == ["audit.begun", "audit.lost", *["kv.set"] * 4]
    assert lines(fs)[1]["detail"] == {"administration": 1, "data": 2, "denied": 2}
    audit.record(event())
    await disk.work()
    assert methods(fs).count("audit.lost") == 1
    assert audit._metrics.audit_lost_total == 5


async def test_a_log_that_could_not_be_opened_says_so_from_the_beginning() -> None:
    fs = new_files()
    fs.failing = frozenset({"listdir"})
    audit, _ = made(fs)
    assert audit.trouble
    assert audit.synced(event()).result() is not None


async def test_the_end_of_a_node_writes_what_waits() -> None:
    fs = new_files()
    audit, disk = made(fs)
    audit.record(event(1))
    ending = asyncio.ensure_future(audit.aclose())
    await disk.work()
    await ending
    assert len(lines(fs)) == 2
    audit.record(event(2))
    await disk.work()
    assert (len(lines(fs)), audit._metrics.audit_lost_total) == (2, 1)


async def test_the_end_of_a_node_does_not_wait_for_a_full_disk() -> None:
    fs = new_files()
    audit, disk = made(fs)
    full(fs)
    told = audit.synced(event(1))
    ending = asyncio.ensure_future(audit.aclose())
    await disk.work()
    await ending
    assert told.result() is not None
    assert audit._metrics.audit_lost_total == 1


async def test_a_node_whose_loop_was_closed_writes_what_waits() -> None:
    fs = new_files()
    audit, _ = made(fs)
    audit.record(event(1))
    audit.abandon()
    assert len(lines(fs)) == 2


async def test_a_job_that_breaks_is_a_failed_log() -> None:
    audit, disk = made(new_files())
    told = audit.synced(event())
    _, job = await next_job(disk)
    job.set_exception(RuntimeError("defect"))
    await turn()
    refused = told.result()
    assert refused is not None
    assert refused.code == 5001
    assert audit.trouble


def denied(user: str = "eve", method: str = "kv.set") -> AuditEvent:
    return event(1, kind="denied", method=method, caller=AuditCaller(user=user), code=2004)


@virtual_clock
async def test_a_flood_of_denials_does_not_push_older_lines_out_of_the_log() -> None:
    fs = new_files()
    audit, disk = made(fs)
    for _ in range(LINES_BURST + 5000):
        audit.record(denied())
    for _ in range(10):
        audit.record(denied(method="kv.get"))
    audit.record(event(2))
    told = audit.synced(event(3, kind="administration"))
    await disk.work()
    assert told.result() is None
    await asyncio.sleep(FOLD_S)
    await disk.work()
    assert len(lines(fs)) == 1 + LINES_BURST + 2 + 2
    folded = {line["method"]: line for line in lines(fs)[-2:]}
    assert {name: line["detail"] for name, line in folded.items()} == {
        "kv.set": {"times": 5000},
        "kv.get": {"times": 10},
    }
    assert (folded["kv.get"]["user"], "key" in folded["kv.get"]) == ("eve", False)
    await asyncio.sleep(1.0)
    audit.record(denied())
    await disk.work()
    assert "detail" not in lines(fs)[-1]
    assert audit._metrics.audit_lost_total == 0


@virtual_clock
async def test_many_users_that_are_denied_have_a_bounded_number_of_lines() -> None:
    fs = new_files()
    audit, disk = made(fs)
    for number in range(LINES_BURST + 500):
        audit.record(denied(f"user {number}"))
    ending = asyncio.ensure_future(audit.aclose())
    await disk.work()
    await ending
    rest = lines(fs)[1 + LINES_BURST :]
    assert len(rest) == ALIKE_MAX + 1
    assert sum(line["detail"]["times"] for line in rest) == 500
    assert (rest[-1]["method"], "user" in rest[-1]) == ("audit.others", False)
