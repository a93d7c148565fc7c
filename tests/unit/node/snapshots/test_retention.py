"""Retention at work: pins, failures, and what it says of the past (haptera.node.snapshots.retention)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import pytest

from haptera.node.snapshots.decision import Bounds, SegmentFile, Snapshot, decide
from haptera.testing import virtual_clock
from tests.unit.node.snapshots.doubles import SNAPSHOTS_PATH, Kept, settle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from haptera.node.snapshots.retention import Retention


def past(kept: Kept, segments: int = 6) -> Retention:
    """Give the directory segments, and a snapshot behind each second one."""
    kept.log.on_roll = None
    kept.write(segments)
    for number in range(2, segments + 1, 2):
        kept.log.fs.open(f"{SNAPSHOTS_PATH}/{number * 10:016x}.snap", "x").close()
        kept.retention.add(Snapshot(number * 10, number + 1, number * 1000, 100, number * 10))
    kept.log.fs.sync_directory(SNAPSHOTS_PATH)
    return kept.retention


@virtual_clock
async def test_pinned_files_stay_until_the_pin_is_released() -> None:
    kept = Kept(retain_bytes=4000)
    retention = past(kept)
    with retention.pin(lowest_segment=3, snapshot=20):
        await retention.run()
        assert kept.files == ([20, 40, 60], [3, 4, 5, 6]), "what is older than the pin goes"
    await retention.run()
    assert kept.files == ([40, 60], [5, 6])
    await kept.keeper.close()


@virtual_clock
async def test_what_is_about_to_go_cannot_be_pinned() -> None:
    kept = Kept(retain_bytes=4000)
    retention = past(kept)
    await retention.run()
    with pytest.raises(ValueError, match="segment 3 was removed; the oldest is 5"):
        retention.pin(3)
    with pytest.raises(ValueError, match="no snapshot of index 20"):
        retention.pin(5, 20)
    retention.pin(7, 60).release()
    await kept.keeper.close()


@virtual_clock
async def test_a_segment_that_is_still_to_be_archived_stays() -> None:
    kept = Kept(retain_bytes=4000)
    retention = past(kept)
    kept.held_back = 4
    await retention.run()
    assert kept.files == ([20, 40, 60], [3, 4, 5, 6])
    kept.held_back = 7
    await retention.run()
    assert kept.files == ([40, 60], [5, 6])
    await kept.keeper.close()


@virtual_clock
async def test_after_a_failed_removal_nothing_more_is_removed(caplog: pytest.LogCaptureFixture) -> None:
    kept = Kept(retain_bytes=4000)
    retention = past(kept)
    kept.log.fs.failing = frozenset({"sync_directory"})
    kept.log.fs.fail_with = errno.EIO
    await retention.run()
    kept.log.fs.failing = frozenset()
    assert kept.files == ([40, 60], [1, 2, 3, 4, 5, 6]), "no segment before the snapshots are gone for good"
    await retention.run()
    assert kept.files == ([40, 60], [1, 2, 3, 4, 5, 6])
    assert retention.failed
    assert [record.getMessage() for record in caplog.records].count("retention_failed") == 1
    await kept.keeper.close()


@virtual_clock
async def test_the_reachable_past_begins_with_the_log_or_at_the_oldest_snapshot_with_its_segments() -> None:
    kept = Kept(retain_bytes=4000)
    retention = past(kept)
    found = [retention.oldest]
    await retention.run()
    found.append(retention.oldest)
    assert [None if each is None else each.index for each in found] == [None, 40]
    await kept.keeper.close()


@virtual_clock
async def test_a_damaged_snapshot_is_no_base() -> None:
    kept = Kept(retain_bytes=1)
    retention = past(kept)
    damaged = retention.newest
    assert damaged is not None
    retention.mark_damaged([damaged.index])
    await retention.run()
    assert kept.files == ([40, 60], [5, 6]), "the newest whole one and all behind it"
    await kept.keeper.close()


@virtual_clock
async def test_two_at_a_time_remove_everything_once() -> None:
    kept = Kept(retain_bytes=4000)
    retention = past(kept)
    first, second = retention.run(), retention.run()
    await first
    await second
    await settle()
    assert kept.files == ([40, 60], [5, 6])
    await kept.keeper.close()


class Counted(list[Any]):
    """A list that counts the items that are looked at."""

    looks = 0

    def __iter__(self) -> Iterator[Any]:
        for item in super().__iter__():
            self.looks += 1
            yield item

    def __getitem__(self, at: Any) -> Any:
        self.looks += 1
        return super().__getitem__(at)


def test_a_store_that_was_at_rest_for_a_week_finds_all_that_is_too_old_in_one_pass() -> None:
    """The decision is the loop's, which would stand still for seconds if each base were weighed by itself."""
    count = 2000
    snapshots = Counted(Snapshot(number * 10, number + 1, number * 1000, 500) for number in range(1, count + 1))
    segments = Counted(SegmentFile(number, 300) for number in range(1, count + 1))
    gone = decide(snapshots, segments, Bounds(size_bytes=1 << 30, horizon_ms=count * 2000))
    assert gone.snapshots == tuple(number * 10 for number in range(1, count))
    assert gone.segments == tuple(range(1, count + 1))
    assert snapshots.looks + segments.looks < 20 * count
