"""The keyring and the master key in a data directory: made, opened, changed, migrated."""

from __future__ import annotations

import pytest

from haptera.errors import CorruptionError, StorageError
from haptera.storage import (
    DataDirectory,
    DataKey,
    MasterKey,
    StoredKeyring,
    kept_master_keys,
    open_keyring,
    unwrap_keyring,
    used_key_ids,
    write_snapshot,
)
from haptera.storage.errors import MissingKey, NewerFormat, WrongKey
from haptera.storage.stored_keyring import DATA_KEYS_MAX, MASTER_KEYS_KEPT_MAX
from haptera.testing.filesystem import MemoryFileSystem
from tests.unit.storage.format_1 import format_1, plain_keys
from tests.unit.storage.stores import LOG_PATH, PATH, Store, entries, opened

GIVEN, NEW = MasterKey.of(b"g" * 32), MasterKey.of(b"n" * 32)
KEYS, MASTER = f"{PATH}/keys", f"{PATH}/master.key"


def made(master: MasterKey | None = None) -> MemoryFileSystem:
    """A closed store with ten entries."""
    fs = MemoryFileSystem()
    with opened(fs, master=master) as store:
        store.append(10)
    return fs


def kept(master: MasterKey) -> str:
    """The place of a generated master key that was replaced."""
    return f"{MASTER}.{master.id.hex()}"


def change(fs: MemoryFileSystem, master: MasterKey | None = None) -> StoredKeyring:
    """The keyring of a directory that stays open."""
    return open_keyring(DataDirectory.open(fs, PATH), master)


def test_without_a_given_master_key_one_is_generated_beside_the_data() -> None:
    fs = made()
    assert sorted(fs.listdir(PATH)) == ["keys", "lock", "log", "master.key", "node.toml", "snapshots"]
    master = MasterKey.parse(fs.read(MASTER))
    assert master is not None
    keyring = change(fs)
    assert (keyring.master, keyring.generated, keyring.unused_files) == (master, True, [])
    assert master.secret != MasterKey.parse(made().read(MASTER)).secret  # type: ignore[union-attr]


def test_a_given_master_key_is_nowhere_on_the_disk() -> None:
    fs = made(GIVEN)
    assert sorted(fs.listdir(PATH)) == ["keys", "lock", "log", "node.toml", "snapshots"]
    with opened(fs, master=GIVEN) as store:
        assert store.entries == entries(10)
        assert not store.keyring.generated


@pytest.mark.parametrize("generated", [True, False])
def test_a_wrong_master_key_is_told_with_both_ids_and_nothing_is_touched(generated: bool) -> None:
    fs = made(None if generated else GIVEN)
    right = change(fs.power_failure("keep"), None if generated else GIVEN).master
    before = {name: fs.read(f"{PATH}/{name}") for name in fs.listdir(PATH) if name not in {"log", "lock", "snapshots"}}
    with pytest.raises(WrongKey) as caught:
        Store.open(fs, master=NEW)
    assert (caught.value.expected, caught.value.actual) == (right.id.hex(), NEW.id.hex())
    assert {name: fs.read(f"{PATH}/{name}") for name in before} == before


def test_no_master_key_where_one_was_given_before_is_a_missing_key_and_none_is_made() -> None:
    fs = made(GIVEN)
    with pytest.raises(MissingKey, match=GIVEN.id.hex()) as caught:
        Store.open(fs)
    assert caught.value.file == MASTER
    assert "master.key" not in fs.listdir(PATH)


def test_a_master_key_file_that_is_none_is_damage() -> None:
    fs = made()
    fs.write(MASTER, b"short\n")
    with pytest.raises(CorruptionError) as caught:
        Store.open(fs)
    assert caught.value.file == MASTER
    assert caught.value.actual == "6 bytes"
    assert "short" not in str(caught.value)


def test_a_changed_byte_of_the_generated_master_key_never_opens_anything_else() -> None:
    fs = made()
    data = fs.read(MASTER)
    for at in range(len(data)):
        for mask in (1, 0x20, 0xFF):
            left = fs.power_failure("keep")
            left.write(MASTER, data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :])
            try:
                with opened(left) as store:
                    assert store.entries == entries(10)
            except (CorruptionError, WrongKey):
                continue


def test_a_complete_directory_without_its_keyring_gets_no_new_one() -> None:
    """Even without a segment: where the directory is complete, the keyring was there."""
    fs = MemoryFileSystem()
    with opened(fs):
        pass
    fs.unlink(KEYS)
    for name in fs.listdir(LOG_PATH):
        fs.unlink(f"{LOG_PATH}/{name}")
    with pytest.raises(MissingKey) as caught:
        Store.open(fs)
    assert caught.value.file == KEYS
    assert "keys" not in fs.listdir(PATH)


def test_a_keyring_of_format_1_in_a_directory_of_format_2_is_damage() -> None:
    """An older file was put there. To take it over would undo the encryption of the keys."""
    fs = made()
    fs.write(KEYS, plain_keys(DataKey.of(b"p" * 32)))
    with pytest.raises(CorruptionError) as caught:
        Store.open(fs)
    assert caught.value.file == KEYS


def test_a_new_data_key_is_for_what_is_written_from_then_on() -> None:
    fs = made()
    with opened(fs) as store:
        old = store.keyring.newest
        new = store.keyring.rotate()
        assert store.keyring.keys == (old, new)
        assert new.first_segment == store.log.point.next_segment > 1
        assert new.created_ms > 1_700_000_000_000
        store.append(10)
    with opened(fs) as store:
        assert store.entries == entries(20)
        assert store.keyring.keys == (old, new)


def test_there_is_a_largest_number_of_data_keys() -> None:
    keyring = change(made())
    for _ in range(DATA_KEYS_MAX - 1):
        keyring.rotate()
    with pytest.raises(StorageError, match="in use"):
        keyring.rotate()
    assert len(keyring.keys) == DATA_KEYS_MAX


def test_keys_that_nothing_uses_are_dropped_and_the_newest_never_is() -> None:
    fs = made()
    keyring = change(fs)
    first, second, third = keyring.newest, keyring.rotate(), keyring.rotate()
    assert keyring.drop_unused(lambda: {second.id}) == [first]
    assert keyring.keys == (second, third)
    assert keyring.drop_unused(lambda: {second.id}) == []
    assert keyring.drop_unused(set) == [second]
    assert change(fs.restart()).keys == (third,)


def test_a_key_that_was_the_newest_when_the_files_were_looked_at_is_not_dropped() -> None:
    """A segment may have been made under it meanwhile, and the next rotation made it an older one."""
    keyring = change(made())
    first, second = keyring.newest, keyring.rotate()

    def used() -> set[bytes]:
        keyring.rotate()
        return set()

    assert keyring.drop_unused(used) == [first]
    assert keyring.keys[0] == second


def test_the_generated_master_key_is_replaced() -> None:
    fs = made()
    keyring = change(fs)
    old, keys = keyring.master, keyring.keys
    keyring.change_generated_master()
    assert MasterKey.parse(fs.read(MASTER)) == keyring.master != old
    again = change(fs.restart())
    assert (again.master, again.keys) == (keyring.master, keys)
    assert old.id.hex().encode() not in fs.read(KEYS)


def test_a_generated_master_key_that_is_replaced_is_kept_under_its_id() -> None:
    """A backup of this morning needs it, and there may be no other copy."""
    fs = made()
    backed_up, keyring = [fs.read(KEYS)], change(fs)
    masters = [keyring.master]
    for _ in range(2):
        keyring = change(fs.restart())
        keyring.change_generated_master()
        masters.append(keyring.master)
        backed_up.append(fs.read(KEYS))
    change(fs.restart()).change_master(GIVEN)
    assert kept_master_keys(fs, PATH) == sorted(map(kept, masters))
    for master, data in zip(masters, backed_up, strict=True):
        found = MasterKey.parse(fs.read(kept(master)))
        assert found == master
        assert unwrap_keyring("backup", data, found).newest == keyring.newest
    assert "master.key" not in fs.listdir(PATH)


def test_a_change_that_could_keep_no_more_master_keys_is_refused_and_changes_nothing() -> None:
    for given in (None, GIVEN):
        fs = made()
        for number in range(MASTER_KEYS_KEPT_MAX):
            fs.write(f"{MASTER}.{number:016x}", MasterKey.new().format())
        before = fs.read(KEYS), fs.read(MASTER)
        keyring = change(fs)
        with pytest.raises(StorageError, match=f"{MASTER_KEYS_KEPT_MAX} replaced master keys are kept"):
            keyring.change_generated_master() if given is None else keyring.change_master(given)
        assert (fs.read(KEYS), fs.read(MASTER)) == before
        fs.unlink(f"{MASTER}.{0:016x}")
        keyring.change_generated_master() if given is None else keyring.change_master(given)


def test_a_given_master_key_takes_the_place_of_the_generated_one() -> None:
    fs = made()
    change(fs).change_master(GIVEN)
    assert "master.key" not in fs.listdir(PATH)
    fs = fs.restart()
    with pytest.raises(MissingKey):
        change(fs)
    with opened(fs.restart(), master=GIVEN) as store:
        assert store.entries == entries(10)


def test_one_given_master_key_takes_the_place_of_another() -> None:
    fs = made(GIVEN)
    change(fs, GIVEN).change_master(NEW)
    with pytest.raises(WrongKey):
        change(fs.restart(), GIVEN)
    assert change(fs.restart(), NEW).master == NEW


def test_a_change_to_a_given_master_key_that_was_interrupted_is_finished_by_the_next() -> None:
    """The keyring is under the given key already, and the generated one is still there."""
    fs = made()
    old = MasterKey.parse(fs.read(MASTER))
    assert old is not None
    change(fs).change_master(GIVEN)
    fs.rename(kept(old), MASTER)
    keyring = change(fs.restart(), GIVEN)
    assert keyring.unused_files == [MASTER]
    before = fs.read(KEYS)
    keyring.change_master(GIVEN)
    assert change(fs.restart(), GIVEN).unused_files == [kept(old)]
    assert "master.key" not in fs.listdir(PATH)
    assert fs.read(KEYS) != before, "wrapped with another salt, under the same key"


def test_after_a_change_that_failed_anywhere_later_changes_can_still_be_opened() -> None:
    """Trap: the file holds the new key, memory the old one, and the next rotation wraps under the wrong one."""
    fs = made()
    keyring = change(fs)
    start = len(fs.calls)
    keyring.change_generated_master()
    for nth in range(1, len(fs.calls) - start + 1):
        fs = made()
        keyring = change(fs)
        fs.fail_at = len(fs.calls) + nth
        with pytest.raises(StorageError):
            keyring.change_generated_master()
        fs.fail_at = None
        new = keyring.rotate()
        for left in (fs.power_failure("keep"), fs.power_failure("drop"), fs.restart()):
            assert change(left).newest == new


@pytest.mark.parametrize("name", ["keys.tmp", "master.key.tmp", f"master.key.{'0f' * 8}.tmp"])
def test_what_a_crash_left_of_a_file_of_keys_is_removed(name: str) -> None:
    fs = made()
    fs.write(f"{PATH}/{name}", b"0f" * 32)
    change(fs)
    assert name not in fs.listdir(PATH)


@pytest.mark.parametrize("master", [None, GIVEN])
def test_a_directory_of_format_1_is_migrated_when_it_is_opened(master: MasterKey | None) -> None:
    fs, key = format_1(10)
    with opened(fs, master=master) as store:
        assert store.entries == entries(10)
        assert store.directory.format == 1
        assert store.keyring.newest.secret == key.secret
        store.append(5)
    assert b"format = 2\n" in fs.read(f"{PATH}/node.toml")
    assert key.secret.hex().encode() not in fs.read(KEYS)
    with opened(fs, master=master) as store:
        assert store.directory.format == 2
        assert store.entries == entries(15)
        assert store.directory.node_id == b"n" * 16


def test_a_directory_of_format_1_without_entries_or_keys_is_migrated_too() -> None:
    fs, _ = format_1(0)
    fs.unlink(KEYS)
    for name in fs.listdir(LOG_PATH):
        fs.unlink(f"{LOG_PATH}/{name}")  # format 1 had no segment before the first entry
    with opened(fs) as store:
        store.append(3)
    with opened(fs) as store:
        assert store.entries == entries(3)


def test_a_damaged_keyring_of_format_1_shows_nothing_of_its_key() -> None:
    fs, key = format_1(3)
    text = fs.read(KEYS)
    fs.write(KEYS, text.replace(b'id = "', b'id = "00'))
    with pytest.raises(CorruptionError) as caught:
        Store.open(fs)
    assert key.secret.hex() not in str(caught.value)
    fs.write(KEYS, text.replace(key.id.hex().encode(), b"00" * 8))
    with pytest.raises(CorruptionError):
        Store.open(fs.restart())
    assert "master.key" not in fs.listdir(PATH)


def test_a_log_of_format_1_without_its_keys_is_a_missing_key() -> None:
    fs, _ = format_1(3)
    fs.unlink(KEYS)
    with pytest.raises(MissingKey):
        Store.open(fs)


def test_a_migrated_directory_is_a_newer_one_for_the_version_that_made_it() -> None:
    """That version looks for a number in node.toml, and in keys after it."""
    fs, _ = format_1(3)
    with opened(fs):
        pass
    for name in ("node.toml", "keys"):
        fs.write(f"{PATH}/{name}", fs.read(f"{PATH}/{name}").replace(b"format = 2", b"format = 3"))
        with pytest.raises(NewerFormat):
            Store.open(fs.power_failure("keep"))


def test_the_keys_in_use_are_those_of_segments_and_snapshots() -> None:
    fs = made()
    with opened(fs) as store:
        first, second = store.keyring.newest, store.keyring.rotate()
        store.append(10)
        point = store.log.roll()
        third = store.keyring.rotate()
        write_snapshot(fs, store.directory.snapshots_path, store.keyring, point, 20, [("kv", b"piece")])
        assert used_key_ids(store.directory) == {first.id, second.id, third.id}
        store.log.forget_before(point.next_segment)
        fourth = store.keyring.rotate()
        store.append(5)
        assert store.keyring.drop_unused(lambda: used_key_ids(store.directory)) == [first, second]
        assert store.keyring.keys == (third, fourth)


def test_a_key_is_dropped_only_when_the_removal_of_its_files_outlives_a_power_failure() -> None:
    """Retention may be at work meanwhile: a name that it has removed comes back, until the directory is synced."""
    fs = made()
    with opened(fs) as store:
        point = store.log.roll()
        store.keyring.rotate()
        write_snapshot(fs, store.directory.snapshots_path, store.keyring, point, 10, [("kv", b"piece")])
        store.append(5)
        for segment in store.log.segments:
            if segment.number < point.next_segment:
                fs.unlink(segment.path)
        assert len(store.keyring.drop_unused(lambda: used_key_ids(store.directory))) == 1
        after = fs.power_failure("drop")
    store = Store.open(after, start=point)
    assert used_key_ids(store.directory) <= {key.id for key in store.keyring.keys}
    store.close()


def test_a_segment_whose_header_cannot_be_read_keeps_every_key() -> None:
    fs = made()
    with opened(fs) as store:
        store.keyring.rotate()
        store.append(5)
        path = store.log.segments[0].path
        fs.write(path, b"damaged" + fs.read(path)[7:])
        with pytest.raises(CorruptionError):
            store.keyring.drop_unused(lambda: used_key_ids(store.directory))
        assert len(store.keyring.keys) == 2


def test_a_snapshot_whose_header_is_damaged_uses_no_key() -> None:
    fs = made()
    with opened(fs) as store:
        store.keyring.rotate()
        point = store.log.roll()
        file = write_snapshot(fs, store.directory.snapshots_path, store.keyring, point, 10, [("kv", b"piece")])
        fs.write(file.path, b"damaged")
        used_key_ids(store.directory)
