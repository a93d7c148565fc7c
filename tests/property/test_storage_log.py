"""The log against a list: appends, closings, kills and power failures in any order."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from haptera.storage import Durability, LogEntry
from haptera.testing.filesystem import MemoryFileSystem, Unsynced
from tests.unit.storage.stores import PATH, Store

DURABILITY: st.SearchStrategy[Durability] = st.sampled_from(["sync", "os"])
UNSYNCED: st.SearchStrategy[Unsynced] = st.sampled_from(["drop", "keep", "tear", "reorder"])
SEGMENT_SIZE = st.sampled_from([200, 500, 5000])


class LogAgainstList(RuleBasedStateMachine):
    """`model` is what must be there; `certain` is how much of it a power failure may not take."""

    def __init__(self) -> None:
        super().__init__()
        self.fs = MemoryFileSystem()
        self.model: list[LogEntry] = []
        self.certain = 0

    @initialize(durability=DURABILITY, segment_size=SEGMENT_SIZE)
    def start(self, durability: Durability, segment_size: int) -> None:
        self.open(durability, segment_size)

    def open(self, durability: Durability, segment_size: int) -> None:
        self.store = Store.open(self.fs, PATH, segment_size=segment_size, durability=durability)
        replayed = self.store.entries
        assert replayed == self.model[: len(replayed)]
        assert self.certain <= len(replayed)
        self.model = replayed
        self.certain = len(replayed)

    @rule(payload=st.binary(max_size=300), term=st.integers(0, 2), time_ms=st.integers(0, 1000))
    def append(self, payload: bytes, term: int, time_ms: int) -> None:
        last = self.model[-1] if self.model else LogEntry(0, 0, 0, b"")
        entry = LogEntry(last.term + term, last.index + 1, last.time_ms + time_ms, payload)
        self.store.log.append(entry)
        self.model.append(entry)
        if self.store.log.durability == "sync":
            self.certain = len(self.model)

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
            assert self.store.log.last_index == len(self.model)
            assert self.store.log.first_index == (1 if self.model else 0)
            assert all(segment.size_bytes <= len(self.fs.read(segment.path)) for segment in self.store.log.segments)


TestLogAgainstList = LogAgainstList.TestCase
