"""Stop a store that makes snapshots and forgets its log after every call, take the power away, and open the rest."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import pytest

from haptera.storage import find_snapshots
from tests.support.stops import Stop, lose, stops
from tests.support.thinned import some, thinned
from tests.unit.node.stored_state import PATH, SNAPSHOTS_PATH, StoredState, digest_after, stored
from tests.unit.storage.stores import check_soundness

if TYPE_CHECKING:
    from haptera.storage import Durability
    from haptera.testing.filesystem import MemoryFileSystem

LOSSES = [("killed", 0), ("drop", 0), ("keep", 0), ("tear", 0), ("reorder", 0), ("reorder", 1000)]

digest = cache(digest_after)


class Life:
    """A life of a store. `acknowledged` is the last index that was written, `synced` the last that no power failure may
    take in durability "os".
    """

    def __init__(self, fs: MemoryFileSystem, durability: Durability = "sync") -> None:
        self.fs = fs
        self.durability = durability
        self.acknowledged = 0
        self.synced = 0

    def run(self) -> None:
        state = self.begin()
        self.write(state, 4)
        self.snapshot(state)
        self.write(state, 5)
        state.directory.close()  # the log is left as a killed process leaves it
        state = self.begin()
        self.synced = self.acknowledged
        self.write(state, 2)
        self.snapshot(state)
        forget(state, self.fs)
        state.close()
        state = self.begin()
        self.snapshot(state)
        self.write(state, 3)
        state.close()
        self.synced = self.acknowledged

    def begin(self) -> StoredState:
        return StoredState.begin(self.fs, self.durability)

    def write(self, state: StoredState, count: int) -> None:
        for _ in range(count):
            state.write(1)
            self.acknowledged = state.machine.index

    def snapshot(self, state: StoredState) -> None:
        state.log.roll()
        self.synced = self.acknowledged
        state.snapshot()


def forget(state: StoredState, fs: MemoryFileSystem) -> None:
    """Remove all that the newest snapshot replaces: the older ones first, because each needs the log behind it."""
    for snapshot in find_snapshots(fs, SNAPSHOTS_PATH)[1:]:
        fs.unlink(snapshot.path)
        fs.sync_directory(SNAPSHOTS_PATH)
    state.log.forget_before(state.log.point.next_segment)


class Told(NamedTuple):
    acknowledged: int
    synced: int


@cache
def stopped(durability: Durability) -> list[Stop[Told]]:
    """A life that is stopped after each call."""
    lives: list[Life] = []

    def live(fs: MemoryFileSystem) -> None:
        lives.append(Life(fs, durability))
        lives[0].run()

    found = stops(live, lambda: Told(lives[0].acknowledged, lives[0].synced))
    assert lives[0].acknowledged == 14
    assert len(find_snapshots(found[-1].fs, SNAPSHOTS_PATH)) == 1
    return found


def check_what_is_left(fs: MemoryFileSystem, at_least: int) -> None:
    """Everything acknowledged is there, nothing half done is, and the store goes on: it writes, snapshots, forgets."""
    check_soundness(fs, PATH)
    with stored(fs) as state:
        index = state.machine.index
        assert index >= at_least
        assert state.machine.digest() == digest(index)
        state.write(1)
        state.snapshot()
        forget(state, fs)
        state.write(1)
    with stored(fs.power_failure("drop")) as state:
        assert state.machine.index == index + 2
        assert state.machine.digest() == digest(index + 2)
        assert state.log.recovery.entries == 1


@thinned(4)
@pytest.mark.parametrize(("loss", "seed"), LOSSES)
def test_a_crash_after_any_call_loses_nothing_that_was_acknowledged(loss: str, seed: int, step: int) -> None:
    for after, fs, told in some(stopped("sync"), step):
        check_what_is_left(lose(fs, loss, seed + after), told.acknowledged)


@thinned(6)
@pytest.mark.parametrize("loss", ["killed", "drop", "reorder"])
def test_in_durability_os_a_snapshot_makes_all_before_it_durable(loss: str, step: int) -> None:
    for after, fs, told in some(stopped("os"), step):
        check_what_is_left(lose(fs, loss, after), told.acknowledged if loss == "killed" else told.synced)


def begin(fs: MemoryFileSystem) -> None:
    StoredState.begin(fs)


@thinned(31)
@pytest.mark.parametrize("loss", ["killed", "drop", "reorder"])
def test_a_crash_during_the_recovery_from_a_crash(loss: str, step: int) -> None:
    for after, fs, told in some(stopped("sync"), step):
        left = lose(fs, loss, after)
        for stop, begun, _ in stops(begin, lambda: None, left):
            check_what_is_left(lose(begun, loss, stop), told.acknowledged)
