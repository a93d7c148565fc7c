"""Whole runs of a node and its clients on virtual time, under faults that a seed chooses.

A failing seed names the command that shows its run.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

import pytest

from haptera import Entry
from haptera.errors import StorageError
from haptera.node import backups
from haptera.node.archiver import Archiver
from haptera.node.snapshots import assembly
from haptera.replication import ClusterOfOne
from haptera.state.requests import Requests
from haptera.storage import StoredKeyring, archive
from haptera.testing.filesystem import MemoryFile, MemoryFileSystem
from tests.simulation.clients import Claim, PromiseBroken, Shared
from tests.simulation.run import MACHINE, NETWORK, simulate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from haptera.node.recovery import DurableState
    from haptera.storage import DataDirectory, DataKey, File, LogEntry, MasterKey

ROOT: Final = Path(__file__).parents[2]
#: Parts of `make test`: 200 seeds, five times as many as each planted fault needs to show.
PARTS: Final = 10
SEEDS_PER_PART: Final = 20
#: Parts of `make test-long`: 1,000 seeds that are the same each time, and 20,000 that are new.
ALL_PARTS: Final = 50
LONG_PARTS: Final = 40
SEEDS_PER_LONG_PART: Final = 500
#: Seeds that have shown a fault, of Haptera or of the simulation, outside the ones above.
NOTED_SEEDS: Final = (81453985321415, 167460455240961)
#: Seeds within which each of the planted faults shows.
FOUND_WITHIN: Final = 120


@pytest.mark.parametrize(
    "part", [*range(PARTS), *(pytest.param(part, marks=pytest.mark.long) for part in range(PARTS, ALL_PARTS))]
)
def test_no_seed_breaks_a_promise(part: int) -> None:
    for seed in range(part * SEEDS_PER_PART, (part + 1) * SEEDS_PER_PART):
        simulate(seed)


@pytest.mark.parametrize("seed", NOTED_SEEDS)
def test_no_noted_seed_breaks_a_promise(seed: int) -> None:
    simulate(seed)


@pytest.mark.long
@pytest.mark.parametrize("part", range(LONG_PARTS))
def test_no_new_seed_breaks_a_promise(part: int) -> None:
    first = random.randrange(1 << 48)
    print(f"part {part}: the seeds from {first}")
    for seed in range(first, first + SEEDS_PER_LONG_PART):
        simulate(seed)


def test_a_run_repeats_by_its_seed_in_another_process_with_another_order_of_hashes() -> None:
    seed = random.randrange(1 << 32)
    runs = {shown(seed, hash_seed) for hash_seed in ("0", "1234")} | {simulate(seed).text()}
    assert len(runs) == 1, f"seed {seed}"


def test_the_runs_have_every_fault_and_every_outcome() -> None:
    text = "".join(simulate(seed).text() for seed in range(40))
    marks = {
        "cut": "is cut",
        "freeze": "delivers nothing",
        "slow": "takes up to",
        "clock": "has its clock set",
        "restart": "restarts",
        "kill": "is killed",
        "lose_power": "loses power",
        "break_disk": "gave up",
        "fill_disk": "has a full disk",
        "slow_disk": "has a disk that takes",
        "snapshot": "has a snapshot of index",
        "rotate_data_key": "has another data key",
        "rotate_master_key": "has another master key",
        "backup": "has given a backup",
        "lose_archive": "cannot reach its archive",
    }
    assert marks.keys() == {*NETWORK, *MACHINE}
    marks |= {
        "history": "still has the state of revision",
        "retention": "has no longer the state of revision",
        "interrupted change": "has its last master key again",
        "restore": "by a backup\n",
        "archive": "by a backup and the archive behind it",
    }
    missing = [kind for kind, mark in marks.items() if mark not in text]
    assert not missing
    assert all(outcome in text for outcome in (": not_applied", ": unknown", ": another version"))


def test_a_seed_that_fails_names_the_command_that_shows_its_run() -> None:
    with patch.object(Requests, "judge", forgets):
        seed, error = first_failure()
    assert f"the whole run: python -m tests.simulation {seed}" in error.__notes__


def forgets(*_: Any) -> None:
    """Judge each request as a new one."""


def unsynced(*_: Any) -> None:
    """Sync nothing, and say that it is done."""


def nothing(entry: LogEntry, frees: bool) -> None:
    """Write nothing."""


def answered_first(self: ClusterOfOne, entry: LogEntry, encode: Callable[[], bytes], frees: bool) -> None:
    """Tell of the entry as committed, and write it when the loop comes to it."""
    write = self._append
    self._append = nothing
    try:
        before_the_disk(self, entry, encode, frees)
    finally:
        self._append = write
    self._loop.call_later(0.001, lambda: write(entry_of(entry, encode), frees))


before_the_disk: Final = ClusterOfOne._write
all_of_the_log: Final = backups.extent_of


def entry_of(entry: LogEntry, encode: Callable[[], bytes]) -> LogEntry:
    return type(entry)(entry.term, entry.index, entry.time_ms, encode())


def kept_in_memory(self: StoredKeyring, keys: tuple[DataKey, ...], masters: Iterable[MasterKey]) -> None:
    """Use the changed keyring, and write no file."""
    self._keys = keys


def none_used(_: DataDirectory) -> set[bytes]:
    """Find no data key in use."""
    return set()


def without_the_end(storage: DurableState) -> backups.LogExtent:
    """Leave the last segment out of a backup."""
    extent = all_of_the_log(storage)
    return backups.LogExtent(extent.index, extent.segments[:-1])


def half(source: File, target: File, _: object) -> None:
    """Copy the first half of a segment to the archive."""
    target.pwrite(source.pread(source.size() // 2, 0), 0)


def through_what_failed(self: Archiver, error: Exception | None) -> None:
    """Count segments as archived that could not be copied."""
    self.through += error is not None
    worked(self, error)


worked: Final = Archiver._worked


@pytest.mark.parametrize(
    "planted",
    [
        pytest.param(lambda: patch.object(MemoryFile, "fdatasync", unsynced), id="records are not synced"),
        pytest.param(lambda: patch.object(MemoryFile, "fsync", unsynced), id="new segments are not synced"),
        pytest.param(lambda: patch.object(MemoryFileSystem, "sync_directory", unsynced), id="names are not synced"),
        pytest.param(lambda: patch.object(Requests, "judge", forgets), id="a repeated change is applied again"),
        pytest.param(lambda: patch.object(ClusterOfOne, "_write", answered_first), id="answers come before the disk"),
        pytest.param(
            lambda: patch.object(StoredKeyring, "_replace", kept_in_memory), id="changed keys are not written"
        ),
        pytest.param(lambda: patch.object(assembly, "used_key_ids", none_used), id="keys that are needed are dropped"),
        pytest.param(lambda: patch.object(backups, "extent_of", without_the_end), id="a backup lacks the last changes"),
        pytest.param(lambda: patch.object(archive, "copy_content", half), id="half of a segment is archived"),
        pytest.param(
            lambda: patch.object(Archiver, "_worked", through_what_failed), id="a failed copy counts as archived"
        ),
    ],
)
def test_the_runs_find_a_planted_fault(planted: Callable[[], Any]) -> None:
    with planted():
        _, error = first_failure()
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, AssertionError | StorageError), error


def first_failure() -> tuple[int, BaseException]:
    """The first seed whose run fails, and the error."""
    for seed in range(FOUND_WITHIN):
        try:
            simulate(seed)
        except Exception as error:
            return seed, error
    pytest.fail(f"{FOUND_WITHIN} seeds have not found it")


def test_a_claim_tells_what_may_be_read_from_what_may_not() -> None:
    claim = Claim()
    claim.changed(b"1", 5)
    claim.open.append(b"2")
    with pytest.raises(PromiseBroken, match="'3' was read"):
        claim.seen(entry(b"3", 6))
    claim.seen(entry(b"2", 6))
    with pytest.raises(PromiseBroken, match="version 5 was read after version 6"):
        claim.seen(entry(b"1", 5))
    with pytest.raises(PromiseBroken, match="nothing was read"):
        claim.seen(None)
    with pytest.raises(PromiseBroken, match="version 6 was given after version 6"):
        claim.changed(b"4", 6)


def test_the_counter_lies_between_the_acknowledged_increments_and_all() -> None:
    shared = Shared()
    shared.incremented(1)
    shared.incremented(3)
    shared.count_open = 1
    shared.counter_is(3)
    for wrong in (1, 2, 4):
        with pytest.raises(PromiseBroken):
            shared.counter_is(wrong)
    with pytest.raises(PromiseBroken):
        shared.incremented(3)


def entry(value: bytes, version: int) -> Entry:
    return Entry(key="k", value=value, version=version)


def shown(seed: int, hash_seed: str) -> str:
    """The run of a seed, from a process of its own."""
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-m", "tests.simulation", str(seed)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
