"""Snapshots are made one at a time, when they are due or asked for, and a failure is told and tried again later
(haptera.node.snapshots.keeper).
"""

from __future__ import annotations

import asyncio
import errno
import logging
from typing import TYPE_CHECKING, Any

import pytest

from haptera.errors import Failure
from haptera.node.snapshots import keeper as keeper_module
from haptera.node.snapshots import room
from haptera.node.snapshots.errors import SnapshotNotMade
from haptera.node.snapshots.keeper import Current
from haptera.node.snapshots.messages import Failed, decode_message, encode, failure_of
from haptera.storage import DiskFull
from haptera.testing import virtual_clock
from tests.unit.node.nodes import ManualWriter
from tests.unit.node.snapshots.doubles import Kept, settle

if TYPE_CHECKING:
    from haptera.node.snapshots.keeper import Answer


def result(answer: Answer) -> Current | Failure:
    assert answer.done()
    return answer.result()


def code(answer: Answer) -> int:
    failed = result(answer)
    assert isinstance(failed, Failure)
    return failed.code


def events(caplog: pytest.LogCaptureFixture, name: str) -> list[dict[str, Any]]:
    return [vars(record) for record in caplog.records if record.getMessage() == name]


@virtual_clock
async def test_a_snapshot_is_made_when_the_log_has_grown() -> None:
    kept = Kept(snapshot_after=3000)
    kept.write(2)
    await settle()
    assert not kept.maker.points
    kept.write()
    await settle()
    assert [point.next_segment for point in kept.maker.points] == [4]
    kept.maker.done()
    await settle()
    assert kept.metrics.snapshots_total == 1
    assert kept.retention.newest is not None
    assert kept.retention.newest.index == 30
    kept.write(2)
    await settle()
    assert len(kept.maker.points) == 1, "the log counts from the snapshot on"
    await kept.keeper.close()


@virtual_clock
async def test_a_change_that_is_a_day_old_is_in_a_snapshot_and_a_quiet_store_makes_none() -> None:
    kept = Kept(retain_for=7 * 86_400.0)
    await asyncio.sleep(3 * 86_400)
    assert not kept.maker.points
    kept.machine.index = kept.log.index = 5
    kept.keeper.entry_written()
    await settle()
    assert [point.index for point in kept.maker.points] == [5]
    kept.maker.done()
    await asyncio.sleep(3 * 86_400)
    assert len(kept.maker.points) == 1
    await kept.keeper.close()


@virtual_clock
async def test_a_change_behind_a_snapshot_is_in_the_next_after_a_day_although_files_age_for_a_week() -> None:
    kept = Kept(retain_for=7 * 86_400.0)
    kept.write()
    first = kept.keeper.request()
    await settle()
    kept.maker.done()
    await first
    assert kept.retention.next_in_s is not None, "a timer waits for that"
    kept.machine.index = kept.log.index = 15
    kept.keeper.entry_written()
    await asyncio.sleep(86_400 - 1)
    assert [point.index for point in kept.maker.points] == [10]
    await asyncio.sleep(1)
    await settle()
    assert [point.index for point in kept.maker.points] == [10, 15]
    kept.maker.done()
    await kept.keeper.close()


@virtual_clock
async def test_requests_share_a_snapshot_that_covers_them() -> None:
    """A request joins the snapshot that is being made if that has every answered write, and the next one else."""
    writer = ManualWriter()
    kept = Kept(writer=writer)
    kept.write()
    first = kept.keeper.request()
    await settle()
    before_the_roll = kept.keeper.request()
    await writer.write()
    await settle()
    assert kept.maker.points[-1].index == 10
    joins = kept.keeper.request()
    kept.write()
    waits, waits_too = kept.keeper.request(), kept.keeper.request()
    kept.maker.done()
    await settle()
    assert result(first) == result(before_the_roll) == result(joins) == Current(10, 10, 100, 0.5)
    assert not waits.done()
    await writer.write()
    await settle()
    assert [point.index for point in kept.maker.points] == [10, 20], "one for both, and it covers both"
    kept.maker.done()
    await settle()
    assert result(waits) == result(waits_too) == Current(20, 20, 100, 0.5)
    await kept.keeper.close()


@virtual_clock
async def test_a_state_that_has_its_snapshot_needs_no_other() -> None:
    kept = Kept()
    assert (await kept.keeper.request()) == Current(0, 0, 0, 0.0), "an empty store has nothing to keep"
    kept.write()
    answer = kept.keeper.request()
    await settle()
    kept.maker.done()
    await answer
    assert (await kept.keeper.request()) == Current(10, 10, 100, 0.0)
    assert len(kept.maker.points) == 1
    await kept.keeper.close()


@virtual_clock
async def test_a_request_that_is_given_up_does_not_stop_the_snapshot() -> None:
    kept = Kept()
    kept.write()
    answer = kept.keeper.request()
    await settle()
    answer.cancel()
    kept.maker.done()
    await settle()
    assert kept.metrics.snapshots_total == 1
    await kept.keeper.close()


@virtual_clock
async def test_requests_are_bounded_and_those_given_up_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "WAITING_MAX", 3)
    kept = Kept()
    kept.write()
    assert not kept.keeper.request().done()
    await settle()
    kept.write()
    second, third = kept.keeper.request(), kept.keeper.request()
    assert code(kept.keeper.request()) == 3007
    second.cancel()
    assert not kept.keeper.request().done()
    assert code(kept.keeper.request()) == 3007
    await kept.keeper.close()
    assert code(third) == 5005


@virtual_clock
async def test_a_failed_snapshot_is_told_counted_and_tried_again_later(caplog: pytest.LogCaptureFixture) -> None:
    kept = Kept(snapshot_after=1000)
    kept.write()
    await settle()
    answer = kept.keeper.request()
    kept.maker.fail(SnapshotNotMade("the process was ended by signal 9"))
    await settle()
    assert code(answer) == 5008
    assert kept.metrics.snapshots_failed_total == 1
    told = events(caplog, "snapshot_failed")
    assert [event["reason"] for event in told] == ["the process was ended by signal 9"]
    kept.write()
    await settle()
    assert len(kept.maker.points) == 1, "not at once"
    await asyncio.sleep(told[0]["retry_in_seconds"] + 0.1)
    assert len(kept.maker.points) == 2
    kept.maker.done()
    await settle()
    assert kept.metrics.snapshots_total == 1
    await kept.keeper.close()


@virtual_clock
async def test_someone_who_asks_does_not_wait_for_the_backoff() -> None:
    kept = Kept(snapshot_after=1000)
    kept.write()
    await settle()
    kept.maker.fail(SnapshotNotMade("x"))
    await settle()
    answer = kept.keeper.request()
    await settle()
    kept.maker.done()
    assert isinstance(await answer, Current)
    await kept.keeper.close()


@virtual_clock
async def test_damage_is_named(caplog: pytest.LogCaptureFixture) -> None:
    kept = Kept(snapshot_after=1000)
    kept.write()
    await settle()
    kept.maker.fail(SnapshotNotMade("it is damaged", Failed("CorruptionError", "it is damaged", (), "f", 7, "a", "b")))
    await settle()
    (event,) = events(caplog, "snapshot_failed")
    assert (event["file"], event["offset"], event["expected"], event["actual"]) == ("f", 7, "a", "b")
    assert event["levelno"] == logging.ERROR
    await kept.keeper.close()


@virtual_clock
async def test_a_snapshot_that_a_failed_attempt_found_damaged_is_no_base_any_more() -> None:
    kept = Kept(snapshot_after=2000)
    for _ in range(2):
        kept.write(2)
        await settle()
        kept.maker.done()
        await settle()
    kept.write(2)
    await settle()
    kept.maker.fail(SnapshotNotMade("no room", Failed("DiskFull", "no room", (40,))))
    await settle()
    assert kept.retention.newest is not None
    assert (kept.retention.newest.index, kept.keeper.index) == (20, 20)
    await kept.keeper.close()


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (errno.ENOSPC, "the node's disk is full"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EMFILE, "the process has no free file descriptor"),
        (errno.ENFILE, "the machine has no free file descriptor"),
    ],
)
@virtual_clock
async def test_a_shortage_is_answered_with_its_cause(number: int, cause: str) -> None:
    kept = Kept()
    kept.write()
    answer = kept.keeper.request()
    await settle()
    error = DiskFull("snapshots/1.tmp: cannot be made", number)
    kept.maker.fail(SnapshotNotMade(str(error), decode_message(encode(failure_of(error, ())))))  # type: ignore[arg-type]
    await settle()
    failed = result(answer)
    assert isinstance(failed, Failure)
    assert (failed.code, failed.outcome, failed.message) == (5002, "not_applied", cause)
    await kept.keeper.close()


@virtual_clock
async def test_a_fault_of_the_program_is_no_end_of_all_snapshots(caplog: pytest.LogCaptureFixture) -> None:
    kept = Kept()
    kept.write()
    answer = kept.keeper.request()
    await settle()
    kept.maker.fail(ZeroDivisionError("x"))
    await settle()
    assert code(answer) == 5008
    (event,) = events(caplog, "snapshot_failed")
    assert event["exc_info"]
    again = kept.keeper.request()
    await settle()
    kept.maker.done()
    assert isinstance(await again, Current)
    await kept.keeper.close()


@virtual_clock
async def test_a_log_that_cannot_be_sealed_is_a_failed_snapshot() -> None:
    kept = Kept()
    kept.write()
    kept.log.error = DiskFull("no room")
    answer = kept.keeper.request()
    await settle()
    assert code(answer) == 5008
    await kept.keeper.close()


@virtual_clock
async def test_a_snapshot_for_which_there_is_no_memory_is_refused(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(room, "available_bytes", lambda: 100 << 20)
    kept = Kept(snapshot_after=1000)
    kept.write()
    await settle()
    assert not kept.maker.points
    (event,) = events(caplog, "snapshot_refused")
    assert "are available" in event["reason"]
    failed = await kept.keeper.request()
    assert isinstance(failed, Failure)
    assert failed.code == 5008
    assert failed.details["available_bytes"] == 100 << 20
    assert failed.details["needed_bytes"] == kept.keeper.needed_bytes
    monkeypatch.setattr(room, "available_bytes", lambda: None)
    answer = kept.keeper.request()
    await settle()
    kept.maker.done()
    assert isinstance(await answer, Current), "where the system does not say, it is tried"
    await kept.keeper.close()


@virtual_clock
async def test_what_is_beyond_the_bounds_goes_when_a_snapshot_is_there() -> None:
    kept = Kept(snapshot_after=3000, retain_bytes=8000)
    for _ in range(3):
        kept.write(2)
        await settle()
        kept.maker.done()
        await settle()
    # Two segments and a snapshot each time: with all three there are 6,300 bytes.
    assert kept.files == ([20, 40, 60], [1, 2, 3, 4, 5, 6])
    kept.write(2)
    await settle()
    assert kept.files == ([20, 40, 60], [3, 4, 5, 6, 7, 8]), "there is room for the next snapshot before it is made"
    kept.maker.done()
    await settle()
    assert kept.files == ([20, 40, 60, 80], [3, 4, 5, 6, 7, 8])
    await kept.keeper.close()


@virtual_clock
async def test_what_is_beyond_the_bounds_goes_while_a_snapshot_is_made_too() -> None:
    kept = Kept(snapshot_after=2000, retain_bytes=8000)
    for _ in range(2):
        kept.write(2)
        await settle()
        kept.maker.done()
        await settle()
    kept.write(2)
    await settle()
    assert kept.maker.pending is not None
    assert kept.files == ([20, 40], [1, 2, 3, 4, 5, 6])
    kept.write(2)
    await settle()
    assert kept.files == ([20, 40], [3, 4, 5, 6, 7, 8])
    await kept.keeper.close()


@virtual_clock
async def test_nothing_goes_before_there_is_a_snapshot() -> None:
    kept = Kept(retain_bytes=4000)
    kept.write(10)
    await settle()
    assert kept.files == ([], list(range(1, 11)))
    kept.maker.fail(SnapshotNotMade("x"))
    await settle()
    assert kept.files == ([], list(range(1, 11)))
    await kept.keeper.close()


@virtual_clock
async def test_what_is_too_old_goes_though_nothing_is_written() -> None:
    kept = Kept(snapshot_after=2000, retain_for=700.0)
    for _ in range(2):
        kept.write(2)
        await settle()
        kept.maker.done()
        await settle()
    assert kept.files == ([20, 40], [1, 2, 3, 4])
    kept.time_ms = 4000 + 700_000 - 1
    await asyncio.sleep(800)
    assert kept.files == ([20, 40], [3, 4])
    kept.time_ms += 1
    await asyncio.sleep(100)
    assert kept.files == ([40], [])
    await kept.keeper.close()


@virtual_clock
async def test_a_stop_while_the_log_is_rolled_begins_no_snapshot() -> None:
    writer = ManualWriter()
    kept = Kept(writer=writer)
    kept.write()
    answer = kept.keeper.request()
    await settle()
    closing = asyncio.ensure_future(kept.keeper.close())
    await settle()
    await writer.write()
    await closing
    assert code(answer) == 5005
    assert not kept.maker.points


@virtual_clock
async def test_a_stop_ends_what_is_under_way_and_answers_everyone() -> None:
    kept = Kept()
    kept.write()
    joined = kept.keeper.request()
    await settle()
    kept.write()
    waiting = kept.keeper.request()
    await kept.keeper.close()
    assert kept.maker.stopped
    assert (code(joined), code(waiting)) == (5005, 5005)
    assert code(kept.keeper.request()) == 5005
    assert kept.metrics.snapshots_failed_total == 0
    kept.write(10)
    await settle()
    assert len(kept.maker.points) == 1
    await kept.keeper.close()


@virtual_clock
async def test_keys_that_cannot_be_dropped_are_told_and_the_snapshot_is_made(caplog: pytest.LogCaptureFixture) -> None:
    kept = Kept(snapshot_after=2000)
    kept.keys_error = DiskFull("no room for the keyring")
    for number in (1, 2):
        kept.write(2)
        await settle()
        assert kept.keys_dropped == number - 1, "not while a snapshot is in the making"
        kept.maker.done()
        await settle()
        assert kept.keys_dropped == number
    assert [event["reason"] for event in events(caplog, "data_keys_kept")] == ["no room for the keyring"] * 2
    assert kept.files[0] == [20, 40]
    await kept.keeper.close()


@virtual_clock
async def test_no_key_is_dropped_after_a_removal_that_may_not_be_for_good() -> None:
    kept = Kept(snapshot_after=2000)
    kept.write(2)
    await settle()
    kept.retention.failed = True
    kept.maker.done()
    await settle()
    assert kept.metrics.snapshots_total == 1
    assert kept.keys_dropped == 0
    await kept.keeper.close()
