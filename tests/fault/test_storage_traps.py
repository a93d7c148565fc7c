"""What broke a comparable database's storage. Each test is named after its trap; most have a longer proof beside it."""

from __future__ import annotations

import errno
import re
import tracemalloc

import pytest

from haptera.errors import CorruptionError
from haptera.node import Timeline
from haptera.storage import DataDirectory, Log, LogEntry, MasterKey, open_keyring, read_segments
from haptera.storage.errors import DiskFailed, MissingKey
from haptera.storage.segment_format import ENTRY_SIZE_MAX, RECORD_HEADER_SIZE, SEGMENT_HEADER_SIZE
from haptera.testing.filesystem import Crashed, MemoryFileSystem
from tests.fault.test_snapshot_crash import Life
from tests.unit.node import stored_state
from tests.unit.node.offline.directories import PATH as HISTORY_PATH
from tests.unit.node.offline.directories import Recorded
from tests.unit.storage.stores import LOG_PATH, PATH, Store, entries, opened


def segments(fs: MemoryFileSystem) -> list[bytes]:
    return [fs.read(f"{LOG_PATH}/{name}") for name in sorted(fs.listdir(LOG_PATH))]


def torn_store(seed: int) -> MemoryFileSystem:
    """A store that lost its power while it wrote the third record."""
    fs = MemoryFileSystem()
    store = Store.open(fs)
    store.append(2)
    fs.stop_after = len(fs.calls) + 1
    with pytest.raises(Crashed):
        store.append(1)
    fs.stop_after = None
    return fs.power_failure("tear", seed)


def test_trap_acknowledged_before_any_fsync() -> None:
    """When append returns, its data has been synced, and the power may go (tests/fault/test_storage_crash.py)."""
    fs = MemoryFileSystem()
    store = Store.open(fs)
    for count in range(1, 10):
        store.append(1)
        assert fs.calls[-1][0] == "fdatasync"
        with opened(fs.power_failure("drop")) as left:
            assert left.entries == entries(count)


@pytest.mark.parametrize("seed", range(20))
def test_trap_a_torn_last_record_blocks_the_start(seed: int) -> None:
    """It is cut off and reported, and the store goes on."""
    with opened(torn_store(seed)) as store:
        assert store.entries in (entries(2), entries(3))
        store.append(5)


@pytest.mark.parametrize("over", [0, 1])
def test_trap_a_record_is_written_that_the_reader_refuses_as_too_large(over: int) -> None:
    """The largest entry comes back, and one byte more is refused before anything is written."""
    fs = MemoryFileSystem()
    store = Store.open(fs, segment_size=1024)
    largest = LogEntry(1, 1, 1, bytes(ENTRY_SIZE_MAX + over))
    if over:
        calls = len(fs.calls)
        with pytest.raises(ValueError, match="most a record can hold"):
            store.log.append(largest)
        assert len(fs.calls) == calls
    else:
        store.log.append(largest)
        store.close()
        with opened(fs) as again:
            assert again.entries == [largest]


@pytest.mark.parametrize("files_survive", [True, False])
def test_trap_directory_entries_never_synced(files_survive: bool) -> None:
    """No file or directory that holds something acknowledged has a name that a power failure could take."""
    fs = MemoryFileSystem()
    store = Store.open(fs)
    store.append(12)
    left = fs.power_failure("keep" if files_survive else "drop")
    assert left.listdir(PATH) == [name for name in fs.listdir(PATH) if name in left.listdir(PATH)]
    assert {"log", "keys", "node.toml"} <= set(left.listdir(PATH))
    assert sorted(left.listdir(LOG_PATH)) == sorted(fs.listdir(LOG_PATH))
    assert len(left.listdir(LOG_PATH)) > 1


def test_trap_random_nonces_at_high_write_rates() -> None:
    """Nonces are counted, not drawn: the same payloads in a segment give different ciphertexts, record by record."""
    fs = MemoryFileSystem()
    directory = DataDirectory.open(fs, PATH)
    log = Log.open(fs, directory, open_keyring(directory), segment_size=1 << 20)
    assert not list(log.replay())
    for index in range(1, 1001):
        log.append(LogEntry(1, index, 1, bytes(16)))
    size = RECORD_HEADER_SIZE + 32
    (data,) = segments(fs)
    bodies = [
        data[SEGMENT_HEADER_SIZE + at * size + RECORD_HEADER_SIZE :][:16] for at in range(1000)
    ]  # with a zero payload the ciphertext is the key stream itself
    assert len(set(bodies)) == 1000


@pytest.mark.parametrize("seed", range(10))
def test_trap_a_nonce_used_again_after_a_rewritten_tail(seed: int) -> None:
    """After a torn tail the next record goes to a segment with a new id, hence a new key; no segment is appended to
    twice.
    """
    fs = torn_store(seed)
    before = segments(fs)
    with opened(fs) as store:
        store.append(1)
    after = segments(fs)
    assert len(after) == len(before) + 1
    assert before[0].startswith(after[0]), "the torn segment is only cut"
    assert len({data[28:44] for data in after}) == len(after)


def test_trap_retrying_an_fsync() -> None:
    """After a failed sync the page cache shows a record that the disk never gets. Nobody may be answered from it."""
    fs = MemoryFileSystem()
    store = Store.open(fs, segment_size=4096)
    store.append(2)
    fs.fail_at = len(fs.calls) + 2
    with pytest.raises(Exception, match="cannot append"):
        store.append(1)
    store.close()
    again = Store.open(fs.restart())
    assert again.entries == entries(2), "what is on the disk, not what was cached"


def test_trap_damage_before_a_later_record_is_taken_for_a_torn_tail() -> None:
    """A record was durable before the next was begun, so only the last one can be torn."""
    fs = MemoryFileSystem()
    Store.open(fs, segment_size=4096).append(5)
    name = f"{LOG_PATH}/{fs.listdir(LOG_PATH)[0]}"
    data = bytearray(fs.read(name))
    second = SEGMENT_HEADER_SIZE + RECORD_HEADER_SIZE + 40
    data[second] ^= 0xFF
    left = fs.power_failure("keep")
    left.write(name, bytes(data))
    with pytest.raises(CorruptionError) as caught:
        Store.open(left)
    assert caught.value.offset == second
    assert "record 3 follows" in str(caught.value)


def test_trap_the_keyring_in_plain_text_beside_the_data() -> None:
    """With a given master key nothing in the directory shows a data key; without it nothing opens."""
    master = MasterKey.of(b"m" * 32)
    fs = MemoryFileSystem()
    store = Store.open(fs, master=master)
    store.append(5)
    store.keyring.rotate()
    store.append(5)
    secrets = [master.secret, *(key.secret for key in store.keyring.keys)]
    assert len(secrets) == 3
    store.close()
    for name in fs.listdir(PATH):
        if name not in {"log", "snapshots"}:
            data = fs.read(f"{PATH}/{name}")
            assert not [secret for secret in secrets if secret in data or secret.hex().encode() in data.lower()], name
    with pytest.raises(MissingKey):
        Store.open(fs.restart())


def test_trap_snapshot_and_manifest_as_two_files_that_must_agree() -> None:
    """One rename makes a snapshot current. Before it the one before is, and no other file says which."""
    fs = MemoryFileSystem()
    with stored_state.stored(fs) as state:
        state.write(3)
        state.snapshot()
        state.write(3)
        state.log.roll()
        before = len(fs.calls)
        state.snapshot()
        calls = [call for call in fs.calls[before:] if call[0] in {"rename", "create", "unlink", "mkdir"}]
    name = f"{stored_state.SNAPSHOTS_PATH}/{6:016x}"
    (made, temporary), *others = calls
    assert (made, others) == ("create", [("rename", f"{name}.snap")])
    assert re.fullmatch(rf"{name}\.[0-9a-f]{{32}}\.snap\.tmp", temporary)


def test_trap_the_log_directory_rewritten_in_place() -> None:
    """A segment is written while it is the newest. After that it is only read, and removed when it is the oldest."""
    fs = MemoryFileSystem()
    Life(fs).run()
    newest = oldest = ""
    for name, path in fs.calls:
        if not path.startswith(f"{stored_state.LOG_PATH}/") or name in {"open", "size", "pread", "drop_cache"}:
            continue
        if path == f"{stored_state.LOG_PATH}/reserve":  # it holds no entry
            continue
        segment = path.removesuffix(".tmp")
        if name == "rename":
            assert segment >= newest, "a segment is replaced while it is the newest"
            newest = segment
        elif name == "unlink":
            assert oldest < segment < newest
            oldest = segment
        elif path.endswith(".tmp"):
            assert segment >= newest, "the next segment is made, or the empty newest again"
        else:
            assert segment == newest, (name, path)


def test_trap_the_whole_log_kept_in_memory() -> None:
    """A log of 24 MiB is replayed in the memory of a few of its records, by a node and by a reader beside it."""
    fs = MemoryFileSystem()
    store = Store.open(fs, segment_size=8 << 20)
    store.append(24, 1 << 20)
    store.close()
    directory = DataDirectory.open(fs, PATH)
    keyring = open_keyring(directory)
    for replay in (
        read_segments(fs, directory.log_path, keyring),
        Log.open(fs, directory, keyring, segment_size=8 << 20).replay(),
    ):
        tracemalloc.start()
        try:
            assert sum(1 for _ in replay) == 24
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 12 << 20


@pytest.mark.parametrize("call", ["pwrite", "fdatasync"])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_trap_appending_goes_on_after_a_failed_append_or_fsync(call: str, number: int) -> None:
    """Nothing is written, synced or sealed after it, by no way into the log, until the log is opened again."""
    fs = MemoryFileSystem()
    store = Store.open(fs)
    store.append(2)
    fs.failing, fs.fail_with = frozenset({call}), number
    with pytest.raises(DiskFailed):
        store.append(1)
    fs.failing = frozenset()
    calls = len(fs.calls)
    for attempt in (lambda: store.append(1), store.log.roll):
        with pytest.raises(DiskFailed, match="takes no more writes"):
            attempt()
    store.close()
    assert len(fs.calls) == calls
    with opened(fs.power_failure("drop")) as again:
        assert again.entries == entries(2)
        again.append(3)


def test_trap_point_in_time_recovery_that_reaches_only_to_the_last_snapshot() -> None:
    """Every revision behind the newest snapshot, and every one between two snapshots, is restored as it was."""
    fs = MemoryFileSystem()
    record = Recorded(fs, seed=1, entries=60, snapshot_each=25)
    timeline = Timeline(fs, HISTORY_PATH, open_keyring)
    of_snapshots = {base.revision for base in timeline.ranges[-1].bases}
    between = [revision for revision in range(len(record.states)) if revision not in of_snapshots]
    assert max(between) - max(of_snapshots) > 10
    for revision in between:
        machine = timeline.at_revision(revision).machine
        assert {key: value for key, (value, *_) in machine.kv.entries.items()} == record.states[revision]
