"""The tools beside a node at full speed, which makes segments and snapshots and removes old ones all the while."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from haptera.errors import CorruptionError, StorageError
from haptera.node import NodeConfig, Timeline, verify
from haptera.state import operations
from haptera.storage import OsFileSystem, find_snapshots, open_keyring
from haptera.storage.errors import DiskFailed
from tests.unit.node.offline.directories import START_MS, append, opened, snapshot
from tests.unit.node.offline.test_pitr import content

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Entries between two snapshots; a segment holds some twenty entries.
SNAPSHOT_EACH = 70
LOOKS = 20


class Node:
    """A store that a thread writes to: entry n sets one key to n, so that the state at each revision is known."""

    def __init__(self, path: str) -> None:
        self.fs = OsFileSystem()
        self.durable = opened(self.fs, NodeConfig(data_dir=path, segment_size=64 * 1024, durability="os"))
        self.stopping = threading.Event()
        self.retained = threading.Event()
        self.trouble: BaseException | None = None
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            number = 0
            while not self.stopping.is_set():
                number += 1
                append(self.durable, [operations.Set("key", b"%d " % number * 600)], START_MS + number)
                if number % SNAPSHOT_EACH == 0:
                    snapshot(self.durable, self.fs)
                    self._retain()
        except BaseException as error:
            self.trouble = error

    def _retain(self) -> None:
        """Keep two snapshots, and the segments behind the older one."""
        found = find_snapshots(self.fs, self.durable.directory.snapshots_path)
        for each in found[2:]:
            self.fs.unlink(each.path)
        if len(found) > 1 and found[1].point is not None:
            self.durable.log.forget_before(found[1].point.next_segment)
            self.retained.set()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    running = Node(str(tmp_path / "data"))
    running.thread.start()
    try:
        assert running.retained.wait(60)
        yield running
    finally:
        running.stopping.set()
        running.thread.join()
        running.durable.close()
    assert running.trouble is None


def test_a_verification_finds_nothing_wrong(node: Node) -> None:
    path = node.durable.directory.path
    for _ in range(LOOKS):
        found = verify(node.fs, NodeConfig(data_dir=path), open_keyring)
        assert found.sound, (list(found.check.findings), found.start.error)


def test_a_recovery_gives_the_state_or_says_that_its_files_are_gone(node: Node) -> None:
    path = node.durable.directory.path
    restored = 0
    for look in range(LOOKS):
        try:
            timeline = Timeline(node.fs, path, open_keyring)
            (reach,) = timeline.reach()
            revision = reach.last_revision - look * 5 % (reach.last_revision - reach.first_revision + 1)
            machine = timeline.at_revision(revision).machine
        except (CorruptionError, DiskFailed, StorageError):
            continue  # retention was faster
        assert content(machine) == {"key": b"%d " % revision * 600}
        restored += 1
    assert restored
