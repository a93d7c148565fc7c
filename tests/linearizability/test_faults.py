"""Some order of the calls explains every answer, under damage, cuts, freezes, kills, cancellations and repeated ids.

Trap: a change applied twice, because its answer was damaged and the server forgot it before it was repeated.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.linearizability.faults import FAULTS, KINDS, record
from tests.linearizability.history import JUDGED, READS, ends_of
from tests.linearizability.processes import ServedNode
from tests.linearizability.replay import Replay
from tests.linearizability.simulation import FAULTS_OF_THE_STORE, FOUND_WITHIN, simulate
from tests.linearizability.workload import SETS, WEIGHTS
from tests.simulation.node import SimulatedNode
from tests.simulation.planted import PLANTED

if TYPE_CHECKING:
    from pathlib import Path

    from tests.linearizability.porcupine import Checker

PARTS = 8
#: On a node that forgot a change whose answer was damaged, one seed in sixty showed it.
SEEDS_PER_PART = 50

REAL_HISTORIES = 10


def test_a_simulated_history_repeats_by_its_seed() -> None:
    seed = random.randrange(1 << 32)
    (first, faults), (second, same_faults) = simulate(seed), simulate(seed)
    assert first.lines() == second.lines()
    assert faults == same_faults
    assert len(faults) == FAULTS


def test_simulated_histories_replay_in_the_order_of_their_revisions() -> None:
    """They have every operation, outcome and fault."""
    runs = [simulate(seed) for seed in range(20, 40)]
    for history, _ in runs:
        Replay(history).check()
    faults = {fault for _, done in runs for fault in done}
    assert faults == {*KINDS, *SimulatedNode.kinds}
    operations = [operation for history, _ in runs for operation in history.operations]
    answered = Counter(operation.method for operation in operations if operation.outcome == "ok")
    assert answered.keys() == WEIGHTS.keys() - SETS
    ended = Counter(operation.method for history, _ in runs if history.log for operation in ends_of(history.log))
    assert ended["die"] > ended["end"] > 20
    changes = Counter(operation.outcome for operation in operations if operation.method not in READS)
    assert changes.keys() >= {"ok", "unknown"}
    assert changes["ok"] > 10 * changes["unknown"] > 100
    assert {operation.told.code for operation in operations} == {0, *JUDGED}
    repeated = Counter(operation.request for operation in operations if operation.outcome == "ok")
    assert max(count for request, count in repeated.items() if request) > 1


@pytest.mark.long
@pytest.mark.parametrize("part", range(PARTS))
def test_simulated_histories_are_linearizable(checker: Checker, tmp_path: Path, part: int) -> None:
    seeds = range(part * SEEDS_PER_PART, (part + 1) * SEEDS_PER_PART)
    files = []
    for seed in seeds:
        history = simulate(seed)[0]
        Replay(history).check()
        files.append(history.save(tmp_path / f"seed-{seed}.jsonl"))
    verdicts, text = checker.check(files)
    assert set(verdicts) == {"Ok"}, text


@pytest.mark.long
@pytest.mark.parametrize("name", FAULTS_OF_THE_STORE)
def test_the_checker_finds_a_planted_fault(checker: Checker, tmp_path: Path, name: str) -> None:
    with PLANTED[name]():
        files = [simulate(seed)[0].save(tmp_path / f"seed-{seed}.jsonl") for seed in range(FOUND_WITHIN)]
    assert "Illegal" in checker.check(files)[0]


@pytest.mark.long
def test_histories_of_real_processes_are_linearizable(checker: Checker, tmp_path: Path, short_path: Path) -> None:
    files = []
    for number in range(REAL_HISTORIES):
        seed = random.randrange(1 << 32)
        print(f"seed {seed}")
        choices = random.Random(seed)
        history, _ = asyncio.run(record(ServedNode(short_path / str(number), choices), choices))
        Replay(history).check()
        files.append(history.save(tmp_path / f"{number}.jsonl"))
    verdicts, text = checker.check(files)
    assert set(verdicts) == {"Ok"}, text
