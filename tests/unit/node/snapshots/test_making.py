"""A snapshot is made of the log that the node means, and is read back before it counts
(haptera.node.snapshots.making).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from haptera.errors import CorruptionError
from haptera.node.config import NodeConfig
from haptera.node.recovery import DurableState
from haptera.node.snapshots import making
from haptera.node.snapshots.child import SnapshotProcess
from haptera.node.snapshots.errors import SnapshotNotMade
from haptera.node.snapshots.making import make_snapshot
from haptera.state import Logged, encode_commands, operations
from haptera.storage import LogEntry, OsFileSystem, find_snapshots, write_snapshot
from haptera.testing.filesystem import MemoryFileSystem

if TYPE_CHECKING:
    from collections.abc import Iterator

PATH = "/data"
EVENTS_SIZE = 1 << 20


@pytest.fixture
def state() -> Iterator[DurableState]:
    """An open directory with ten entries in its log."""
    opened = DurableState(NodeConfig(data_dir=PATH, listen=(), segment_size=64 * 1024), MemoryFileSystem())
    opened.open()
    for index in range(1, 11):
        command = Logged(operations.Set(f"key{index}", b"value"))
        opened.log.append(LogEntry(1, index, index * 1000, encode_commands([command])))
    yield opened
    opened.close()


def test_a_snapshot_has_the_state_up_to_its_point(state: DurableState) -> None:
    point = state.log.roll()
    calls: list[None] = []
    made = make_snapshot(state.directory.fs, PATH, state.keyring, point, EVENTS_SIZE, lambda: calls.append(None), [])
    assert (made.index, made.revision, made.keys, made.time_ms) == (10, 10, 10, 10_000)
    assert made.next_segment == point.next_segment
    (found,) = find_snapshots(state.directory.fs, state.directory.snapshots_path)
    assert (found.point, found.size_bytes) == (point, made.size_bytes)
    assert len(calls) > 10, "progress is told often"


def test_a_snapshot_goes_on_from_the_one_before_without_the_log_before_it(state: DurableState) -> None:
    fs = state.directory.fs
    first = state.log.roll()
    make_snapshot(fs, PATH, state.keyring, first, EVENTS_SIZE, lambda: None, [])
    state.log.append(LogEntry(1, 11, 11_000, encode_commands([Logged(operations.Delete("key1"))])))
    second = state.log.roll()
    state.log.forget_before(first.next_segment)
    made = make_snapshot(fs, PATH, state.keyring, second, EVENTS_SIZE, lambda: None, [])
    assert (made.index, made.keys) == (11, 9)


@pytest.mark.parametrize("log_is_whole", [True, False])
def test_the_second_process_says_which_snapshots_it_found_damaged(tmp_path: Path, log_is_whole: bool) -> None:
    path = tmp_path / "d"
    opened = DurableState(NodeConfig(data_dir=str(path), listen=(), segment_size=64 * 1024), OsFileSystem())
    opened.open()
    points = []
    for index in (1, 2, 3):
        opened.log.append(LogEntry(1, index, index * 1000, encode_commands([Logged(operations.Set("key", b"value"))])))
        points.append(opened.log.roll())
    for point in points[:2]:
        make_snapshot(OsFileSystem(), str(path), opened.keyring, point, EVENTS_SIZE, lambda: None, [])
    newest, oldest = find_snapshots(OsFileSystem(), str(path / "snapshots"))
    Path(newest.path).write_bytes(Path(newest.path).read_bytes()[:-1])
    run = SnapshotProcess(str(path))
    if log_is_whole:
        assert run.make(points[2], opened.keyring, EVENTS_SIZE).damaged == (2,)
    else:
        Path(oldest.path).unlink()
        opened.log.forget_before(2)
        with pytest.raises(SnapshotNotMade) as told:
            run.make(points[2], opened.keyring, EVENTS_SIZE)
        assert told.value.found is not None
        assert told.value.found.damaged == (2,)
    assert "snapshot_damaged" in run.said
    opened.close()


@pytest.mark.parametrize("change", [{"tag": bytes(16)}, {"index": 9}, {"time_ms": 1}])
def test_a_log_that_leads_elsewhere_is_damage(state: DurableState, change: dict[str, Any]) -> None:
    point = msgspec.structs.replace(state.log.roll(), **change)
    with pytest.raises(CorruptionError, match="a log that leads to"):
        make_snapshot(state.directory.fs, PATH, state.keyring, point, EVENTS_SIZE, lambda: None, [])
    assert not find_snapshots(state.directory.fs, state.directory.snapshots_path)


def test_a_snapshot_that_cannot_be_read_back_is_no_snapshot(
    state: DurableState, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs = state.directory.fs
    write = write_snapshot

    def write_badly(*arguments: Any) -> Any:
        made = write(*arguments)
        file = fs.open(made.path, "r+")
        file.pwrite(b"\xff", made.size_bytes - 1)
        file.close()
        return made

    monkeypatch.setattr(making, "write_snapshot", write_badly)
    point = state.log.roll()
    with pytest.raises(CorruptionError):
        make_snapshot(fs, PATH, state.keyring, point, EVENTS_SIZE, lambda: None, [])
    assert not find_snapshots(fs, state.directory.snapshots_path), "and it is removed"
