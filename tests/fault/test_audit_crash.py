"""Stop the node after every call while it writes the audit log, take the power away in every way, and go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fault.test_storage_crash import LOSSES
from tests.support.stops import left_by, stops
from tests.unit.node.audit.logs import event, lines, log_on, new_files, paths, verified

if TYPE_CHECKING:
    from collections.abc import Callable

    from haptera.testing.filesystem import MemoryFileSystem

FILE_SIZE, RETAIN = 900, 2500


def program(told: list[int], rounds: int = 24) -> Callable[[MemoryFileSystem], None]:
    """Events one after the other and in batches, over many files and three starts; ``told`` has the synced ones."""

    def run(fs: MemoryFileSystem) -> None:
        for start in range(3):
            log = log_on(fs, FILE_SIZE, RETAIN)
            for number in range(start * rounds // 3, (start + 1) * rounds // 3):
                numbers = [10 * number + each for each in range(1 + number % 3)]
                assert log.append([event(each) for each in numbers]) == (len(numbers), None)
                told.extend(numbers)
            log.close()

    return run


def kept(fs: MemoryFileSystem) -> list[int]:
    return [line["time"] for line in lines(fs) if line["method"] == "kv.set"]


@pytest.mark.parametrize(("loss", "seed"), LOSSES)
def test_no_synced_line_is_lost_and_the_chain_stays_whole_however_a_write_is_interrupted(loss: str, seed: int) -> None:
    told: list[int] = []
    found = stops(program(told), lambda: tuple(told), new_files())
    looked = 0
    for left, synced in left_by(found, loss, seed):
        log = log_on(left, FILE_SIZE, RETAIN)
        assert log.failed is None
        assert log.append([event(9999)]) == (1, None)
        log.close()
        assert verified(left).sound, (verified(left).faults, left.listdir("/data/audit"))
        assert verified(left).torn is None
        there = kept(left)
        first = there[0]
        # Retention has removed what is older than the first that is there.
        assert [each for each in synced if each >= first] == [each for each in there if each in synced]
        assert there[-1] == 9999
        looked += 1
    assert looked > 20


@pytest.mark.parametrize(("loss", "seed"), LOSSES)
def test_a_repair_that_is_interrupted_is_made_again(loss: str, seed: int) -> None:
    fs = new_files()
    log = log_on(fs, FILE_SIZE)
    log.append([event(number) for number in range(8)])
    log.close()
    path = paths(fs)[-1]
    fs.write(path, fs.read(path)[:-10])
    before = fs.power_failure("keep")

    def repair(fs: MemoryFileSystem) -> None:
        log_on(fs, FILE_SIZE).close()

    for left, _ in left_by(stops(repair, lambda: None, before), loss, seed):
        log = log_on(left, FILE_SIZE)
        assert log.failed is None
        log.close()
        assert verified(left).sound
        assert kept(left) == list(range(7))
        assert [line["method"] for line in lines(left)].count("audit.repaired") >= 1
