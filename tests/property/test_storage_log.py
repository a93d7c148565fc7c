"""The log and its snapshots against a list: appends, snapshots, closings, kills and power failures in any order."""

from __future__ import annotations

from contextlib import suppress

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from haptera.errors import CorruptionError
from haptera.storage import (
    Durability,
    LogEntry,
    LogPoint,
    SnapshotFile,
    SnapshotReader,
    find_snapshots,
    write_snapshot,
)
from haptera.testing.filesystem import Crashed, MemoryFileSystem, Unsynced
from tests.unit.storage.stores import PATH, SNAPSHOTS_PATH, Store

DURABILITY: st.SearchStrategy[Durability] = st.sampled_from(["sync", "os"])
UNSYNCED: st.SearchStrategy[Unsynced] = st.sampled_from(["drop", "keep", "tear", "reorder"])
SEGMENT_SIZE = st.sampled_from([200, 500, 5000])


class LogAgainstList(RuleBasedStateMachine):
    """`model` is what must be there; `certain` is how much of it a power failure may not take, and `forgotten` how much
    the log may lack, because a snapshot has it. A snapshot is the list itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fs = MemoryFileSystem()
        self.model: list[LogEntry] = []
        self.certain = 0
        self.forgotten = 0
        self.damaged: set[str] = set()

    @initialize(durability=DURABILITY, segment_size=SEGMENT_SIZE)
    def start(self, durability: Durability, segment_size: int) -> None:
        self.store = Store.open(self.fs, PATH, segment_size=segment_size, durability=durability)
        assert self.store.entries == []

    def open(self, durability: Durability, segment_size: int) -> None:
        found, start = self.newest_snapshot()
        self.store = Store.open(self.fs, PATH, segment_size=segment_size, durability=durability, start=start)
        replayed = found + self.store.entries
        assert replayed == self.model[: len(replayed)]
        assert self.certain <= len(replayed)
        self.model = replayed
        self.certain = len(replayed)

    def newest_snapshot(self) -> tuple[list[LogEntry], LogPoint]:
        """The entries of the newest snapshot that is whole, and where the log goes on."""
        for file in find_snapshots(self.fs, SNAPSHOTS_PATH):
            try:
                with SnapshotReader(self.fs, file.path, self.store.keyring) as reader:
                    pieces = [piece for _, piece in reader.pieces()]
                    return [msgspec.msgpack.decode(piece, type=LogEntry) for piece in pieces], reader.point
            except CorruptionError:
                assert file.path in self.damaged
        return [], LogPoint.START

    def whole_snapshots(self) -> list[SnapshotFile]:
        return [file for file in find_snapshots(self.fs, SNAPSHOTS_PATH) if file.path not in self.damaged]

    @rule(payload=st.binary(max_size=300), term=st.integers(0, 2), time_ms=st.integers(0, 1000))
    def append(self, payload: bytes, term: int, time_ms: int) -> None:
        last = self.model[-1] if self.model else LogEntry(0, 0, 0, b"")
        entry = LogEntry(last.term + term, last.index + 1, last.time_ms + time_ms, payload)
        self.store.log.append(entry)
        self.model.append(entry)
        if self.store.log.durability == "sync":
            self.certain = len(self.model)

    @rule()
    def take_a_snapshot(self) -> None:
        point = self.store.log.roll()
        self.certain = len(self.model)
        assert point.index == len(self.model)
        pieces = (("entries", msgspec.msgpack.encode(entry)) for entry in self.model)
        file = write_snapshot(self.fs, SNAPSHOTS_PATH, self.store.keyring, point, 0, pieces)
        self.damaged.discard(file.path)

    @rule(seed=st.integers(0, 1000), unsynced=UNSYNCED, calls=st.integers(0, 12))
    def lose_power_while_a_snapshot_is_taken(self, seed: int, unsynced: Unsynced, calls: int) -> None:
        durability = self.store.log.durability
        self.fs.stop_after = len(self.fs.calls) + calls
        with suppress(Crashed):
            self.take_a_snapshot()
        self.fs.stop_after = None
        self.fs = self.fs.power_failure(unsynced, seed)
        self.open(durability, 500)

    @rule(kept=st.integers(1, 2))
    def forget_the_log_before_a_snapshot(self, kept: int) -> None:
        whole = self.whole_snapshots()
        if len(whole) >= kept and (point := whole[kept - 1].point) is not None:
            self.store.log.forget_before(point.next_segment)
            self.forgotten = max(self.forgotten, point.index)

    @rule(at=st.integers(0, 1 << 16))
    def damage_the_newest_snapshot(self, at: int) -> None:
        """Where the log still has the entries that the one before it lacks."""
        whole = self.whole_snapshots()
        before = whole[1].index if len(whole) > 1 else 0
        if whole and before >= self.forgotten:
            data = bytearray(self.fs.read(whole[0].path))
            data[at % len(data)] ^= 1
            self.fs.write(whole[0].path, bytes(data))
            self.damaged.add(whole[0].path)

    @rule(durability=DURABILITY, segment_size=SEGMENT_SIZE)
    def close_and_reopen(self, durability: Durability, segment_size: int) -> None:
        self.store.close()
        self.certain = len(self.model)
        self.open(durability, segment_size)

    @rule(durability=DURABILITY, segment_size=SEGMENT_SIZE)
    def kill_and_reopen(self, durability: Durability, segment_size: int) -> None:
        self.fs = self.fs.restart()
        self.certain = len(self.model)
        self.open(durability, segment_size)

    @rule(durability=DURABILITY, segment_size=SEGMENT_SIZE, unsynced=UNSYNCED, seed=st.integers(0, 1000))
    def lose_power_and_reopen(self, durability: Durability, segment_size: int, unsynced: Unsynced, seed: int) -> None:
        self.fs = self.fs.power_failure(unsynced, seed)
        self.open(durability, segment_size)

    @invariant()
    def the_log_says_what_it_holds(self) -> None:
        if hasattr(self, "store"):
            log = self.store.log
            assert log.last_index == len(self.model)
            assert log.first_index <= self.forgotten + 1
            assert log.first_index or self.forgotten == len(self.model)
            assert all(segment.size_bytes <= len(self.fs.read(segment.path)) for segment in log.segments)
            indexes = [index for each in log.segments for index in range(each.first_index, each.last_index + 1)]
            assert indexes == list(range(log.first_index or 1, len(self.model) + 1))[: len(indexes)]


TestLogAgainstList = LogAgainstList.TestCase
