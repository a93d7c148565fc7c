"""Stop a restore after every call, take the power away in every way, and fail each call: what opens is the whole."""

from __future__ import annotations

import errno
from contextlib import suppress
from copy import deepcopy
from typing import TYPE_CHECKING

import pytest

from haptera.errors import CorruptionError, StorageError
from haptera.state import operations
from haptera.testing.filesystem import MemoryFileSystem
from tests.fault.test_storage_crash import LOSSES
from tests.support.stops import lose, stops
from tests.unit.node.offline.backups import Restoring, backup_of
from tests.unit.node.offline.directories import START_MS, append, write_sets
from tests.unit.node.offline.test_from_backup import archive_of

if TYPE_CHECKING:
    from pathlib import Path

    from haptera.storage import Archive


class Prepared:
    """A store with some segments, a backup of several from before its end, and its archive, all in one file system."""

    def __init__(self, folder: Path, *, archived: bool) -> None:
        self.archived = archived
        self.fs = MemoryFileSystem()
        durable = write_sets(self.fs, 75)
        self.data = backup_of(durable)
        for number in range(75, 120):
            append(durable, [operations.Set(f"key {number % 10}", b"%d" % number * 800)], START_MS + number)
        archive_of(self.fs, durable.directory.node_id)
        durable.close()
        self.fs = self.fs.power_failure("keep")
        self.restoring = Restoring(self.fs, folder)

    def restore(self, fs: MemoryFileSystem) -> bytes:
        """Restore; the digest of the state."""
        archive: Archive | None = archive_of(fs, self.node_id) if self.archived else None
        return self.restoring.restore(fs, self.data, archive).digest

    @property
    def node_id(self) -> bytes:
        return self.restoring.reader(self.data).manifest.node_id

    def check(self, fs: MemoryFileSystem, whole: bytes, *, finished: bool) -> None:
        """Nothing opens that is not the whole; an empty store may begin where nothing was restored yet."""
        try:
            found = self.restoring.open(fs)
        except CorruptionError:
            assert not finished
            return
        if finished or found.machine.index:
            assert found.machine.digest() == whole
        found.close()


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize(("loss", "seed"), LOSSES)
def test_a_restore_that_is_interrupted_leaves_the_whole_or_nothing_that_opens(
    loss: str, seed: int, archived: bool, tmp_path: Path
) -> None:
    prepared = Prepared(tmp_path, archived=archived)
    whole = prepared.restore(deepcopy(prepared.fs))
    stopped = stops(prepared.restore, lambda: None, prepared.fs)
    for stop in stopped:
        prepared.check(lose(stop.fs, loss, seed), whole, finished=stop is stopped[-1])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_restore_of_which_any_call_fails_leaves_the_whole_or_nothing_that_opens(number: int, tmp_path: Path) -> None:
    prepared = Prepared(tmp_path, archived=True)
    fs = deepcopy(prepared.fs)
    whole = prepared.restore(fs)
    for call in range(1, len(fs.calls) + 1):
        left = deepcopy(prepared.fs)
        left.fail_at, left.fail_with = call, number
        finished = False
        with suppress(StorageError):
            finished = prepared.restore(left) == whole
        left.fail_at = None
        prepared.check(left.restart(), whole, finished=finished)
