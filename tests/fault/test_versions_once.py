"""No version is given twice: neither by a store that was restored, nor by one that the power has taken changes from.

The stores are stopped after each call, with each loss of power, in the restore, in the first start behind it and in
every start behind that. All versions that any client was ever told are on record.
"""

from __future__ import annotations

from contextlib import closing, suppress
from copy import deepcopy
from errno import ENOSPC
from typing import TYPE_CHECKING

import msgspec
import pytest

from haptera.errors import CorruptionError, StorageError
from haptera.node import Timeline, build_directory, salvage
from haptera.node.recovery import DurableState
from haptera.state import operations
from haptera.storage import DiskFull, open_keyring
from haptera.storage.segment_format import SEGMENT_HEADER_SIZE
from haptera.testing.filesystem import Crashed, MemoryFileSystem
from tests.fault.test_storage_crash import LOSSES
from tests.support.stops import lose
from tests.support.thinned import some, thinned
from tests.unit.node.offline.backups import Restoring, backup_of
from tests.unit.node.offline.directories import CONFIG, PATH, START_MS, append, opened

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from haptera.node import NodeConfig

#: A clock that stands still tells no store from another: the gap itself has to.
CLOCK_MS = START_MS

FEW_LOSSES = [("killed", 0), ("drop", 0), ("keep", 0), ("tear", 1), ("reorder", 2)]
OS = msgspec.structs.replace(CONFIG, durability="os", segment_size=4096)


def started(fs: MemoryFileSystem, config: NodeConfig, clock_ms: int = CLOCK_MS) -> DurableState:
    """A store as a node starts it."""
    durable = DurableState(config, fs)
    try:
        durable.start(lambda: clock_ms)
    except BaseException:
        durable.close()
        raise
    return durable


class Clients:
    """All that clients know: each version that they were told, once."""

    def __init__(self) -> None:
        self.told: set[int] = set()

    def change(self, durable: DurableState, count: int = 1) -> None:
        """Make changes, and take their versions for new ones."""
        for _ in range(count):
            append(durable, [operations.Set("a", b"1" * 300)], max(durable.machine.time_ms, CLOCK_MS))
            version = durable.machine.revision
            assert version not in self.told, f"{version} is given once more"
            self.told.add(version)


def in_the_original(fs: MemoryFileSystem, clients: Clients) -> bytes:
    """A store from which a backup was made in the middle: 10 of its changes are behind it."""
    durable = started(fs, CONFIG)
    clients.change(durable, 20)
    data = backup_of(durable)
    clients.change(durable, 10)
    durable.close()
    return data


def test_trap_a_condition_on_a_version_that_was_lost_holds_in_a_restored_store(tmp_path: Path) -> None:
    fs, clients = MemoryFileSystem(), Clients()
    data = in_the_original(fs, clients)
    restoring = Restoring(fs, tmp_path)
    assert restoring.restore(fs, data).revision == 20
    store = started(fs, restoring.config)
    for number in range(10):  # others have changed the key as often as in the history that is lost
        append(store, [operations.Set("a", b"theirs")], CLOCK_MS + number)
    for lost in range(21, 31):
        append(store, [operations.Set("a", b"mine", if_version=lost)], CLOCK_MS + 20)
    entry = store.machine.kv.entries.get("a")
    assert entry is not None
    assert entry[0] == b"theirs"
    store.close()


def test_trap_a_token_of_a_holder_that_is_lost_lets_it_change_a_restored_store(tmp_path: Path) -> None:
    fs, clients = MemoryFileSystem(), Clients()
    durable = started(fs, CONFIG)
    clients.change(durable, 3)
    data = backup_of(durable)
    append(durable, [operations.GrantLease(60_000), operations.Set("lock", b"me", lease=4)], CLOCK_MS)
    token = durable.machine.revision
    assert durable.machine.leases.fences.holds(token)
    durable.close()
    restoring = Restoring(fs, tmp_path)
    restoring.restore(fs, data)
    store = started(fs, restoring.config)
    append(store, [operations.GrantLease(60_000)], CLOCK_MS)
    lease = store.machine.revision
    append(store, [operations.Set("lock", b"someone else", lease=lease)], CLOCK_MS)
    append(store, [operations.Set("guarded", b"mine", fence=token)], CLOCK_MS)
    assert store.machine.kv.entries.get("guarded") is None
    store.close()


def restore(fs: MemoryFileSystem, target: NodeConfig, data: bytes, restoring: Restoring) -> None:
    restoring.restore(fs, data)


def recover(fs: MemoryFileSystem, target: NodeConfig, data: bytes, restoring: Restoring) -> None:
    build_directory(fs, target, open_keyring, Timeline(fs, PATH, open_keyring).at_revision(20))


def save(fs: MemoryFileSystem, target: NodeConfig, data: bytes, restoring: Restoring) -> None:
    newest = next(f"{PATH}/log/{name}" for name in sorted(fs.listdir(f"{PATH}/log")) if fs.read(f"{PATH}/log/{name}"))
    content = bytearray(fs.read(newest))
    content[-50] ^= 1
    fs.write(newest, bytes(content))
    salvage(fs, CONFIG, target, open_keyring)


@thinned(15)
@pytest.mark.parametrize("make", [restore, recover, save])
@pytest.mark.parametrize("durability", ["sync", "os"])
@pytest.mark.parametrize(("loss", "seed"), FEW_LOSSES)
def test_a_store_that_was_made_of_an_older_state_gives_no_version_again_whatever_crashes(
    make: Callable[[MemoryFileSystem, NodeConfig, bytes, Restoring], None],
    durability: str,
    loss: str,
    seed: int,
    tmp_path: Path,
    step: int,
) -> None:
    fs, original = MemoryFileSystem(), Clients()
    data = in_the_original(fs, original)
    restoring = Restoring(fs, tmp_path)
    fs = fs.power_failure("keep")
    config = restoring.config if make is restore else msgspec.structs.replace(CONFIG, data_dir="target")
    config = msgspec.structs.replace(config, durability=durability)
    whole = deepcopy(fs)
    life(whole, config, lambda made: make(made, config, data, restoring), Clients())
    for stop in some([0, *whole.changes()], step):
        clients = Clients()
        clients.told = set(original.told)
        left = deepcopy(fs)
        left.stop_after = stop
        with suppress(Crashed):
            life(left, config, lambda made: make(made, config, data, restoring), clients)
        left.stop_after = None
        left = lose(left, loss, seed)
        if not made_of_something(left, config):
            continue
        go_on(left, config, clients, loss, seed)


def life(fs: MemoryFileSystem, config: NodeConfig, make: Callable[[MemoryFileSystem], None], clients: Clients) -> None:
    """A restore, the first start, changes, and another start with changes."""
    make(fs)
    for _ in range(2):
        durable = started(fs, config)
        clients.change(durable, 2)
        durable.close()


def made_of_something(fs: MemoryFileSystem, config: NodeConfig) -> bool:
    """Whether the directory is whole; else it does not open, or would be a new store."""
    try:
        durable = opened(fs, config)
    except (CorruptionError, StorageError):
        return False
    durable.close()
    return durable.machine.index > 0


def go_on(fs: MemoryFileSystem, config: NodeConfig, clients: Clients, loss: str, seed: int) -> None:
    """Start what is left, change it, lose the power, and once more."""
    for _ in range(3):
        durable = started(fs, config)
        clients.change(durable, 2)
        fs = lose(fs, loss, seed)
        durable.close()


def work_in_os(fs: MemoryFileSystem, clients: Clients) -> None:
    """Two lives of a store over several segments, the second of which ends in order."""
    for ends in (False, True):
        durable = started(fs, OS)
        clients.change(durable, 16)
        if ends:
            durable.close()
        else:
            durable.directory.close()  # the log is left as a killed process leaves it


@thinned(12)
@pytest.mark.parametrize(("loss", "seed"), LOSSES)
def test_no_loss_of_power_lets_a_store_give_a_version_again(loss: str, seed: int, step: int) -> None:
    whole = MemoryFileSystem()
    work_in_os(whole, Clients())
    for stop in some([0, *whole.changes()], step):
        fs, clients = MemoryFileSystem(), Clients()
        fs.stop_after = stop
        with suppress(Crashed):
            work_in_os(fs, clients)
        fs.stop_after = None
        left = lose(fs, loss, seed)
        crash_in_the_start(left, clients, loss, seed)
        go_on(left, OS, clients, loss, seed)


def crash_in_the_start(fs: MemoryFileSystem, clients: Clients, loss: str, seed: int) -> None:
    """Stop the start at one of its calls, and begin again from there: with a kill, and with another loss of power."""
    whole = deepcopy(fs)
    deepcopy(clients).change(started(whole, OS))
    for stop in some([0, *whole.changes()], 16):
        for next_loss in {"killed", loss}:
            left, more = deepcopy(fs), deepcopy(clients)
            left.stop_after = stop
            with suppress(Crashed):
                more.change(started(left, OS))
            left.stop_after = None
            go_on(lose(left, next_loss, seed), OS, more, loss, seed)


def served_as(fs: MemoryFileSystem, config: NodeConfig = OS) -> tuple[bytes, int]:
    """The id under which a store is served, and the number of its gaps; it ends in order."""
    durable = started(fs, config)
    gaps = durable.machine.kv.gaps
    found = gaps.server_id or durable.directory.node_id, len(gaps.found)
    durable.close()
    return found


def test_a_store_is_the_same_server_until_the_power_fails() -> None:
    fs, clients = MemoryFileSystem(), Clients()
    durable = started(fs, OS)
    identity = durable.directory.node_id
    clients.change(durable, 3)
    failed, kept = fs.power_failure("drop"), fs.power_failure("keep")
    assert served_as(deepcopy(fs).restart()) == (identity, 0), "killed"
    assert served_as(deepcopy(fs).restart(), CONFIG) == (identity, 0), "killed, and sync from then on"
    synced = deepcopy(fs).restart()
    deepcopy(clients).change(started(synced, CONFIG))
    assert served_as(synced.power_failure("drop"), CONFIG) == (identity, 0), "sync when the power went"
    ended = fs.restart()
    started(ended, OS).close()
    assert served_as(ended.power_failure("keep")) == (identity, 0), "stopped in order, and then the power went"
    server_id, gaps = served_as(failed)
    assert (server_id == identity, gaps) == (False, 1), "the power went"
    assert served_as(failed.power_failure("keep")) == (server_id, 1), "it keeps that id"
    assert served_as(kept, CONFIG)[1] == 1, "the power went, and sync from then on"


def test_a_machine_that_does_not_name_its_boot_counts_each_end_that_is_not_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(MemoryFileSystem, "boot_id", lambda _: "")
    fs, clients = MemoryFileSystem(), Clients()
    durable = started(fs, OS)
    clients.change(durable)
    assert served_as(fs.restart())[1] == 1
    again = fs.restart()
    started(again, OS).close()
    assert served_as(again)[1] == 1


def test_a_write_that_fails_is_noted_at_once_where_the_system_drops_whole_records() -> None:
    """No torn tail tells the next start of that: the records are gone, up to where one begins."""
    fs, clients = MemoryFileSystem(), Clients()
    durable = started(fs, OS)
    clients.change(durable, 3)
    fs.failing = frozenset({"pwrite"})
    with pytest.raises(StorageError):
        clients.change(durable)
    fs = fs.restart()
    path = f"{PATH}/log/{1:016x}.seg"
    fs.write(path, fs.read(path)[:SEGMENT_HEADER_SIZE].ljust(OS.segment_size, b"\0"))
    go_on(fs, OS, clients, "killed", 0)


@pytest.mark.parametrize("closed", [False, True])
def test_a_disk_that_has_failed_may_have_lost_what_the_system_has_not_written(closed: bool) -> None:
    fs, clients = MemoryFileSystem(), Clients()
    durable = started(fs, OS)
    clients.change(durable)
    fs.fail_at = len(fs.calls) + 1
    with pytest.raises(StorageError):
        clients.change(durable)
    if closed:
        durable.close()
    assert served_as(fs.restart())[1] == 1


#: The calls by which a life ends with what it has appended: each may find that the system has dropped it.
ENDS: dict[str, Callable[[DurableState, Clients], object]] = {
    "append": lambda durable, clients: clients.change(durable, 20),
    "roll": lambda durable, clients: durable.log.roll(),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("broken", [{"fdatasync", "fsync"}, {"fdatasync"}])
def test_a_failed_sync_is_noted_at_once_for_a_process_that_is_killed_before_it_closes(
    end: str, broken: set[str]
) -> None:
    """The system drops what it could not write, and no boot parts the next start from that."""
    fs, clients = MemoryFileSystem(), Clients()
    durable = started(fs, OS)
    clients.change(durable, 3)
    fs.failing = frozenset(broken)
    with pytest.raises(StorageError):
        ENDS[end](durable, clients)
    go_on(fs.restart(), OS, clients, "killed", 0)
    assert served_as(fs.restart())[1] == 1


def test_a_sync_that_fails_at_the_end_of_a_store_is_noted() -> None:
    fs, clients = MemoryFileSystem(), Clients()
    durable = started(fs, OS)
    clients.change(durable, 3)
    fs.failing = frozenset({"fdatasync"})
    with pytest.raises(StorageError):
        durable.close()
    go_on(fs.restart(), OS, clients, "killed", 0)


@pytest.mark.parametrize("next_life", [OS, CONFIG])
def test_a_sync_that_fails_in_a_start_is_noted(next_life: NodeConfig) -> None:
    fs, clients = MemoryFileSystem(), Clients()
    clients.change(started(fs, OS), 3)
    fs = fs.restart()
    fs.failing = frozenset({"fdatasync"})
    with pytest.raises(StorageError):
        started(fs, next_life)
    go_on(fs.restart(), next_life, clients, "killed", 0)


@pytest.mark.parametrize("next_life", [OS, CONFIG])
def test_a_torn_tail_is_a_doubt_in_the_same_boot_too(next_life: NodeConfig) -> None:
    """The system may have dropped pages that it could not write, and told no one before the process was killed."""
    fs, clients = MemoryFileSystem(), Clients()
    durable = started(fs, OS)
    clients.change(durable, 3)
    path = f"{PATH}/log/{1:016x}.seg"
    content = fs.read(path)
    end = len(content.rstrip(b"\0"))
    fs = fs.restart()
    fs.write(path, content[: end - 100] + bytes(len(content) - end + 100))
    go_on(fs, next_life, clients, "killed", 0)
    assert served_as(fs.restart(), next_life)[1] == 1


def test_a_start_that_a_full_disk_refuses_keeps_the_doubt_about_what_older_software_left() -> None:
    fs, clients = MemoryFileSystem(), Clients()
    durable = started(fs, OS)
    clients.change(durable, 3)
    with closing(fs.open(f"{PATH}/log/{1:016x}.seg", "r+")) as segment:
        segment.fdatasync()  # these stay, so that the start has records to seal
    clients.change(durable, 3)
    fs.unlink(f"{PATH}/open-end")
    fs.unlink(f"{PATH}/log/reserve")
    fs.sync_directory(PATH)
    fs = fs.power_failure("drop")
    fs.failing, fs.fail_with = frozenset({"allocate", "pwrite"}), ENOSPC
    for _ in range(2):
        with pytest.raises(DiskFull):
            started(fs, OS)
    fs.failing = frozenset()
    go_on(fs, OS, clients, "killed", 0)


@pytest.mark.parametrize("loss", ["killed", "drop", "keep"])
def test_a_directory_that_older_software_left_unsealed_may_lack_changes(loss: str) -> None:
    """Older software has not named the boot: what it wrote with durability "os" may be gone."""
    fs, clients = MemoryFileSystem(), Clients()
    durable = started(fs, OS)
    clients.change(durable, 3)
    fs.unlink(f"{PATH}/open-end")
    fs.sync_directory(PATH)
    left = lose(fs, loss, 0)
    interrupted = deepcopy(left)
    opened(interrupted, OS).close()  # it seals the log, and is stopped before it goes on
    for each in (left, interrupted):
        started(each, OS).close()
        go_on(each, OS, deepcopy(clients), loss, 0)
        assert served_as(each)[1] >= 1


def test_an_empty_file_has_an_older_copy_of_a_directory_leave_a_gap() -> None:
    fs, clients = MemoryFileSystem(), Clients()
    durable = started(fs, CONFIG)
    clients.change(durable, 5)
    durable.close()
    copy = fs.power_failure("keep")
    durable = started(fs, CONFIG)
    clients.change(durable, 5)
    durable.close()
    copy.write(f"{PATH}/open-end", b"")
    go_on(copy, CONFIG, clients, "killed", 0)


def test_with_durability_sync_no_loss_of_power_costs_anything() -> None:
    fs, clients = MemoryFileSystem(), Clients()
    durable = started(fs, CONFIG)
    clients.change(durable, 3)
    assert served_as(fs.power_failure("drop"), CONFIG) == (durable.directory.node_id, 0)
    assert "open-end" not in fs.listdir(PATH)


@pytest.mark.parametrize("passed_ms", [1_000, 0, -1_000])
def test_stores_that_are_restored_from_one_backup_one_after_the_other_give_no_version_twice(
    passed_ms: int, tmp_path: Path
) -> None:
    """Each of them knows the backup alone, and nothing of the one before: time tells them apart, and chance where the
    clock stands, or is behind the backup.
    """
    fs, clients = MemoryFileSystem(), Clients()
    data = in_the_original(fs, clients)
    restoring = Restoring(fs, tmp_path)
    for number in range(4):
        target = MemoryFileSystem()
        restoring.restore(target, data)
        store = started(target, restoring.config, CLOCK_MS + passed_ms * number)
        clients.change(store, 50)
        store.close()
