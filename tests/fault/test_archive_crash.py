"""Stop the program after every call while it archives, take the power away in every way, and go on."""

from __future__ import annotations

import pytest

from haptera.storage import Archive, sealed_segments
from haptera.testing.filesystem import MemoryFileSystem
from tests.fault.test_storage_crash import LOSSES
from tests.support.stops import left_by, stops
from tests.unit.storage.stores import LOG_PATH, Store

NODE = bytes(range(16))


def prepared() -> MemoryFileSystem:
    """A store of several segments, all of it on the disk."""
    fs = MemoryFileSystem()
    store = Store.open(fs)
    store.append(13)
    store.close()
    return fs.power_failure("drop")


def archive_all(fs: MemoryFileSystem) -> None:
    """Archive all that is sealed, and remove it from the log afterwards, as retention does."""
    archive = Archive(fs, "archive", NODE)
    archive.create()
    archive.add_keyring(fs.read("data/keys"))
    for number, path in sealed_segments(fs, LOG_PATH).items():
        if not archive.holds(number, path):
            archive.add(number, path)
        fs.unlink(path)
        fs.sync_directory(LOG_PATH)


@pytest.mark.parametrize(("loss", "seed"), LOSSES)
def test_no_segment_is_lost_however_archiving_is_interrupted(loss: str, seed: int) -> None:
    before = prepared()
    contents = {number: before.read(path) for number, path in sealed_segments(before, LOG_PATH).items()}
    assert len(contents) > 2
    for left, _ in left_by(stops(archive_all, lambda: None, before), loss, seed):
        archive_all(left)  # the next start
        kept = Archive.find(left, "archive")
        assert {number: left.read(path) for number, path in kept.segments().items()} == contents
        assert kept.keyrings() == [("archive/keys/0000000000000001", left.read("data/keys"))]
