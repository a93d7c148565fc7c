"""Whole runs of a node and its clients on virtual time, under faults that a seed chooses.

A failing seed names the command that shows its run.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from haptera import Entry
from haptera.errors import StorageError
from tests.simulation.claims import Claim, Shared
from tests.simulation.planted import PLANTED
from tests.simulation.promises import PromiseBroken
from tests.simulation.run import MACHINE, NETWORK, simulate

ROOT: Final = Path(__file__).parents[2]
#: Parts of `make test`: with the seeds that are run for their faults 120, in which each planted fault shows.
PARTS: Final = range(2, 6)
SEEDS_PER_PART: Final = 20
#: The first seeds, which have every fault and every outcome.
VARIED_SEEDS: Final = range(PARTS.start * SEEDS_PER_PART)
#: Parts of `make test-long`: 1,000 seeds that are the same each time, and 20,000 that are new.
ALL_PARTS: Final = 50
LONG_PARTS: Final = 40
SEEDS_PER_LONG_PART: Final = 500
#: Seeds that have shown a fault, of Haptera or of the simulation, outside the ones above: each with whether a killed
#: node leaves a gap.
NOTED_SEEDS: Final = ((81453985321415, False), (167460455240961, False), (55, True))
#: Seeds within which each of the planted faults shows.
FOUND_WITHIN: Final = 120
#: Where the search for a fault begins that takes many seeds: a change of the simulation may show it elsewhere, and the
#: search goes on through all of them.
SHOWN_BY: Final = {
    "a failed copy counts as archived": 19,
    "a read is stale": 29,
    "a watch repeats a part of a revision": 45,
    "keys end early": 27,
}


@pytest.mark.parametrize(
    "part", [*PARTS, *(pytest.param(part, marks=pytest.mark.long) for part in range(PARTS.stop, ALL_PARTS))]
)
def test_no_seed_breaks_a_promise(part: int) -> None:
    for seed in range(part * SEEDS_PER_PART, (part + 1) * SEEDS_PER_PART):
        simulate(seed)


@pytest.mark.parametrize("part", [0, 1, *(pytest.param(part, marks=pytest.mark.long) for part in range(2, ALL_PARTS))])
def test_no_seed_breaks_a_promise_where_a_killed_node_leaves_a_gap(part: int) -> None:
    runs = [simulate(seed, leaves_gaps=True) for seed in range(part * SEEDS_PER_PART, (part + 1) * SEEDS_PER_PART)]
    assert any("may have lost changes" in run.text() for run in runs)


@pytest.mark.parametrize(("seed", "leaves_gaps"), NOTED_SEEDS)
def test_no_noted_seed_breaks_a_promise(seed: int, *, leaves_gaps: bool) -> None:
    simulate(seed, leaves_gaps=leaves_gaps)


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
    """And none of them breaks a promise."""
    text = "".join(simulate(seed).text() for seed in VARIED_SEEDS)
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
        "a watch that is left": "leaves its watch at revision",
        "a watcher that stands still": "takes nothing for",
        "a watch that is lost in a revision": "is cut off in the middle of revision",
        "a watch behind the history": "cannot go on, because the changes are not kept",
        "a read of the past": "get both at 1",
        "a lease that is over": "None]",
        "a lease that is gone": ": LeaseNotFound",
        "a token that is gone": ": Fenced",
        "a key that is gone": ": KeyNotFound",
        "a read behind the history": "the revision is no longer kept",
    }
    missing = [kind for kind, mark in marks.items() if mark not in text]
    assert not missing
    assert all(outcome in text for outcome in (": not_applied", ": unknown", ": VersionMismatch"))


def test_a_seed_that_fails_names_the_command_that_shows_its_run() -> None:
    name = "a read is stale"
    with PLANTED[name]():
        seed, error = first_failure(SHOWN_BY[name])
    assert f"the whole run: python -m tests.simulation {seed}" in error.__notes__


@pytest.mark.parametrize("name", PLANTED)
def test_the_runs_find_a_planted_fault(name: str) -> None:
    with PLANTED[name]():
        _, error = first_failure(SHOWN_BY.get(name, 0))
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, AssertionError | StorageError), error


def first_failure(begin: int) -> tuple[int, BaseException]:
    """The first seed from ``begin`` on whose run fails, and the error. Behind the last seed come those before."""
    for seed in (*range(begin, FOUND_WITHIN), *range(begin)):
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
    shared = Shared(lambda: False)
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
