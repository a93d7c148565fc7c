"""The verification of a data directory says what a start would do, and is right."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from haptera.errors import CorruptionError, MissingKey
from haptera.node import Start, verify
from haptera.node.offline.verify import rehearse
from haptera.storage import open_keyring
from haptera.testing.filesystem import MemoryFileSystem
from tests.unit.node.offline.directories import CONFIG, LOG_PATH, PATH, opened, write_sets

if TYPE_CHECKING:
    from haptera.storage import DataDirectory, Keyring

COUNT = 60


def written() -> MemoryFileSystem:
    fs = MemoryFileSystem()
    write_sets(fs, COUNT).close()
    return fs.power_failure("drop")


def active() -> MemoryFileSystem:
    """The directory of a node that lost its power between two writes."""
    fs = MemoryFileSystem()
    write_sets(fs, COUNT)
    return fs.power_failure("drop")


def newest(fs: MemoryFileSystem) -> str:
    return f"{LOG_PATH}/{max(name for name in fs.listdir(LOG_PATH) if name.endswith('.seg'))}"


def test_a_sound_directory_would_open_in_the_state_in_which_it_opens() -> None:
    for fs in (written(), active()):
        found = verify(fs, CONFIG, open_keyring)
        durable = opened(fs)
        assert found.sound
        assert (found.start.revision, found.start.index, found.start.keys) == (COUNT, COUNT, 10)
        assert found.start.digest == durable.machine.digest()


def test_a_torn_tail_would_be_cut_off_as_the_start_does() -> None:
    fs = active()
    path = newest(fs)
    data = fs.read(path)
    end = len(data.rstrip(b"\0"))
    fs.write(path, data[: end - 9] + bytes(len(data) - end + 9))
    found = verify(fs, CONFIG, open_keyring)
    assert found.sound
    assert (found.start.torn_file, found.start.revision) == (path, COUNT - 1)
    assert fs.read(path)[:end] == data[: end - 9] + bytes(9), "the check has cut nothing"
    recovery = opened(fs).log.recovery
    assert (recovery.file, recovery.torn_bytes) == (path, found.start.torn_bytes)


def test_a_start_would_refuse_damage_with_the_error_with_which_it_does() -> None:
    fs = written()
    path = f"{LOG_PATH}/{min(fs.listdir(LOG_PATH))}"
    data = bytearray(fs.read(path))
    data[5000] ^= 1
    fs.write(path, bytes(data))
    found = verify(fs, CONFIG, open_keyring)
    assert not found.sound
    with pytest.raises(CorruptionError) as refused:
        opened(fs)
    assert str(found.start.error) == str(refused.value)
    assert [finding.file for finding in found.check.findings] == [path]


def test_a_start_would_refuse_a_log_without_its_keys() -> None:
    fs = written()
    fs.unlink(f"{PATH}/keys")
    assert isinstance(verify(fs, CONFIG, open_keyring).start.error, MissingKey)


def test_a_verification_beside_a_node_that_runs_changes_nothing_and_needs_no_lock() -> None:
    fs = MemoryFileSystem()
    node = write_sets(fs, COUNT)
    before = len(fs.calls)
    found = verify(fs, CONFIG, open_keyring)
    assert found.sound
    assert found.start.digest == node.machine.digest()
    assert {call for call, _ in fs.calls[before:]} <= {"open", "listdir", "pread", "size", "drop_cache"}


@pytest.mark.parametrize("times", [1, 2])
def test_a_verification_beside_a_node_whose_data_key_is_changed_meanwhile_finds_no_fault(times: int) -> None:
    """The keyring is read first, and all snapshots before the log is listed: a long time for a large directory."""
    fs = MemoryFileSystem()
    node = write_sets(fs, COUNT)
    changes = 0

    def unlock(directory: DataDirectory) -> Keyring:
        nonlocal changes
        found = open_keyring(directory)
        if changes < times:
            changes += 1
            node.keyring.rotate()
            node.log.roll()
        return found

    found = verify(fs, CONFIG, unlock)
    assert changes == times
    assert [str(finding) for finding in found.check.findings] == []
    assert found.sound


@pytest.mark.parametrize(("refusals", "sound"), [(2, True), (3, False)])
def test_a_rehearsal_that_met_a_write_of_a_node_is_repeated(
    monkeypatch: pytest.MonkeyPatch, refusals: int, sound: bool
) -> None:
    starts = [Start(CorruptionError("f", 0, "a record", "half of one")) for _ in range(refusals)]
    real = rehearse
    monkeypatch.setattr(
        "haptera.node.offline.verify.rehearse",
        lambda fs, config: starts.pop() if starts else real(fs, config),
    )
    assert verify(written(), CONFIG, open_keyring).sound is sound
