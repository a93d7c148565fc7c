"""The files of keys under crashes and failing disks: made, migrated, rotated, put under another master key.

The program stops after every call, or every call fails once, and what is left opens: with the master key beside it, or
with one of those that were given.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial

import pytest

from haptera.errors import StorageError
from haptera.storage import DataDirectory, MasterKey
from haptera.storage.errors import MissingKey, WrongKey
from haptera.storage.keyring_format import WrappedKeyring
from haptera.testing.filesystem import Crashed, MemoryFileSystem
from tests.support.stops import Stop, image, left_by, lose, stops
from tests.support.thinned import some, thinned
from tests.unit.storage.format_1 import format_1
from tests.unit.storage.stores import PATH, Store, entries, opened

LOSSES = [("killed", 0), ("keep", 0), ("drop", 0), ("reorder", 0), ("reorder", 1), ("tear", 0), ("tear", 1)]

GIVEN, NEW = MasterKey.of(b"g" * 32), MasterKey.of(b"n" * 32)


@dataclass
class Life:
    """One way to begin, and one to go on from there; `masters` may each open what is left."""

    begin: Callable[[], MemoryFileSystem]
    go_on: Callable[[MemoryFileSystem, list[int]], None]
    masters: tuple[MasterKey | None, ...] = (None,)
    #: After the whole life these alone open it.
    after: tuple[MasterKey | None, ...] = field(default=(None,))


def empty() -> MemoryFileSystem:
    return MemoryFileSystem()


def filled(master: MasterKey | None = None) -> MemoryFileSystem:
    fs = MemoryFileSystem()
    with opened(fs, master=master) as store:
        store.append(8)
    fs.calls.clear()
    return fs


def write(master: MasterKey | None) -> Callable[[MemoryFileSystem, list[int]], None]:
    """Open, which makes or migrates the directory, and append."""

    def go_on(fs: MemoryFileSystem, acknowledged: list[int]) -> None:
        store = Store.open(fs, master=master)
        for _ in range(3):
            store.append(1)
            acknowledged[0] = store.log.last_index
        store.close()

    return go_on


def rotate(fs: MemoryFileSystem, acknowledged: list[int]) -> None:
    """Two new data keys with appends under each, and the oldest keys dropped that nothing uses."""
    acknowledged[0] = 8
    store = Store.open(fs)
    unused = store.keyring.rotate()
    store.keyring.rotate()
    for _ in range(10):
        store.append(1)
        acknowledged[0] = store.log.last_index
    used = {key.id for key in store.keyring.keys} - {unused.id}
    assert store.keyring.drop_unused(lambda: used) == [unused]
    store.append(1)
    acknowledged[0] = store.log.last_index
    store.close()


def change_generated(fs: MemoryFileSystem, acknowledged: list[int]) -> None:
    acknowledged[0] = 8
    store = Store.open(fs)
    store.keyring.change_generated_master()
    store.append(1)
    acknowledged[0] = 9
    store.keyring.change_generated_master()
    store.close()


def change_given(master: MasterKey | None) -> Callable[[MemoryFileSystem, list[int]], None]:
    def go_on(fs: MemoryFileSystem, acknowledged: list[int]) -> None:
        acknowledged[0] = 8
        store = Store.open(fs, master=master)
        store.keyring.change_master(NEW)
        store.append(1)
        acknowledged[0] = 9
        store.close()

    return go_on


LIVES = {
    "made with a generated master key": Life(empty, write(None)),
    "made with a given master key": Life(empty, write(GIVEN), (GIVEN,), (GIVEN,)),
    "migrated with a generated master key": Life(lambda: format_1(8)[0], write(None)),
    "migrated with a given master key": Life(lambda: format_1(8)[0], write(GIVEN), (GIVEN,), (GIVEN,)),
    "a new data key": Life(filled, rotate),
    "another generated master key": Life(filled, change_generated),
    "a given master key for a generated one": Life(filled, change_given(None), (None, NEW), (NEW,)),
    "a given master key for another": Life(lambda: filled(GIVEN), change_given(GIVEN), (GIVEN, NEW), (NEW,)),
}


def stopped(life: Life) -> list[Stop[int]]:
    """A life that is stopped after each call, with the last index that it had acknowledged."""
    acknowledged = [0 if life.begin is empty else 8]
    return stops(lambda fs: life.go_on(fs, acknowledged), lambda: acknowledged[0], life.begin())


def openers(fs: MemoryFileSystem, masters: tuple[MasterKey | None, ...]) -> list[MasterKey | None]:
    """The master keys of these that open a directory, each asked on a copy."""
    found = []
    for master in masters:
        with suppress(WrongKey, MissingKey), opened(deepcopy(fs), master=master):
            found.append(master)
    return found


def check_what_is_left(fs: MemoryFileSystem, masters: tuple[MasterKey | None, ...], at_least: int) -> None:
    """It opens, everything acknowledged is there, and it goes on."""
    found = openers(fs, masters)
    assert found
    for master in found:
        left = deepcopy(fs)
        with opened(left, master=master) as store:
            kept = len(store.entries)
            assert store.entries == entries(kept)
            assert kept >= at_least
            store.append(2)
        with opened(left, master=master) as store:
            assert store.entries == entries(kept + 2)
            assert not [name for name in left.listdir(PATH) if name.endswith(".tmp") and "key" in name]


@thinned(3)
@pytest.mark.parametrize("name", LIVES)
@pytest.mark.parametrize(("loss", "seed"), LOSSES)
def test_a_crash_after_any_call_leaves_a_directory_that_opens(name: str, loss: str, seed: int, step: int) -> None:
    life = LIVES[name]
    places = stopped(life)
    assert tuple(openers(lose(places[-1].fs, "killed", 0), (None, GIVEN, NEW))) == life.after
    for left, at_least in left_by(some(places, step), loss, seed):
        check_what_is_left(left, life.masters, at_least)


@thinned(3)
@pytest.mark.parametrize("name", [name for name in LIVES if name.startswith(("made", "migrated", "another"))])
@pytest.mark.parametrize(("loss", "seed"), LOSSES[2:6])
def test_a_crash_while_it_is_opened_again_after_a_crash(name: str, loss: str, seed: int, step: int) -> None:
    """Making, migrating and tidying up may be interrupted again and again, and begin where they were."""
    life = LIVES[name]
    looked_at = set()
    for left, _ in left_by(some(stopped(life), step), loss, seed):
        for stop, again, _ in stops(lambda fs: opened_again(fs, life), lambda: None, left)[1:]:
            if stop % 3 == seed % 3 and (look := image(found := lose(again, loss, seed))) not in looked_at:
                looked_at.add(look)
                check_what_is_left(found, life.masters, 0)


@thinned(4)
@pytest.mark.parametrize("loss", ["keep", "drop", "reorder"])
def test_a_change_of_the_generated_key_behind_one_that_failed_may_be_stopped_anywhere(loss: str, step: int) -> None:
    """Trap: the first change has put its key into the file, and the keyring is put under two others."""
    base = filled()
    whole = deepcopy(base)
    keyring = Store.open(whole).keyring
    start = len(whole.calls)
    keyring.change_generated_master()
    looked_at = set()
    for fail_at in some(range(start + 1, len(whole.calls) + 1), step):
        behind: list[int] = []
        program = partial(change_behind_one_that_failed, fail_at=fail_at, behind=behind)
        places = stops(program, lambda: None, base)
        first = max(number for number, stop in enumerate(places) if stop.after <= behind[0])
        for after, fs, _ in places[first:]:
            left = lose(fs, loss, fail_at)
            if (look := image(left)) not in looked_at:
                looked_at.add(look)
                assert openers(left, (None,)), (fail_at, after)
                assert keeps_what_opens(left, base.read(f"{PATH}/keys"))
                assert keeps_what_opens(left, fs.read(f"{PATH}/keys")), "a backup that was made at this moment"


def change_behind_one_that_failed(fs: MemoryFileSystem, *, fail_at: int, behind: list[int]) -> None:
    """Put another generated master key in the place of the first, and again when that has failed, ``behind`` a call."""
    keyring = Store.open(fs).keyring
    fs.fail_at = fail_at
    with pytest.raises(StorageError):
        keyring.change_generated_master()
    fs.fail_at = None
    behind.append(len(fs.calls))
    keyring.change_generated_master()


def keeps_what_opens(fs: MemoryFileSystem, keyring: bytes) -> bool:
    """Whether a master key in the directory opens a keyring, which may be in a backup."""
    names = [name for name in fs.listdir(PATH) if name.startswith("master.key") and not name.endswith(".tmp")]
    found = [MasterKey.parse(fs.read(f"{PATH}/{name}")) for name in names]
    wrapped = WrappedKeyring("backup", keyring)
    return any(master is not None and master.id in wrapped.master_ids for master in found)


@thinned(3)
@pytest.mark.parametrize("name", ["another generated master key", "a given master key for a generated one"])
@pytest.mark.parametrize(("loss", "seed"), LOSSES)
def test_a_crash_leaves_a_key_for_the_backups_made_before(name: str, loss: str, seed: int, step: int) -> None:
    """The generated master key that is replaced stays in the directory, whatever happens on the way."""
    places = stopped(LIVES[name])
    keyring = places[0].fs.read(f"{PATH}/keys")
    for after, fs, _ in some(places, step):
        assert keeps_what_opens(lose(fs, loss, seed), keyring), after


def opened_again(fs: MemoryFileSystem, life: Life) -> None:
    Store.open(fs, master=life.masters[0]).directory.close()


@thinned(3)
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("name", LIVES)
def test_any_call_fails_once(name: str, number: int, step: int) -> None:
    """The error is told, and after it the directory opens, in this process and in the next."""
    life = LIVES[name]
    whole = life.begin()
    life.go_on(whole, [0])
    begun = life.begin()
    looked_at = set()
    for at in some(range(1, len(whole.calls) + 1), step):
        fs = deepcopy(begun)
        fs.fail_at, fs.fail_with = at, number
        acknowledged = [0]
        with suppress(StorageError):
            life.go_on(fs, acknowledged)
        fs.fail_at = None
        at_least = max(acknowledged[0], 8 if life.begin is not empty else 0)
        for left in (fs.power_failure("keep"), fs.power_failure("drop"), fs.restart()):
            if (seen := (image(left), at_least)) not in looked_at:
                looked_at.add(seen)
                check_what_is_left(left, life.masters, at_least)


def test_a_full_disk_does_not_keep_an_interrupted_change_from_opening() -> None:
    """The keyring is under two keys; to have it under one again needs a little space, and reading needs none."""
    fs = filled()
    whole = deepcopy(fs)
    store = Store.open(whole)
    store.keyring.change_generated_master()
    renames = [at for at, (name, path) in enumerate(whole.calls, 1) if name == "rename" and path == f"{PATH}/keys"]
    fs.stop_after = renames[0] + 1
    with suppress(Crashed):
        Store.open(fs).keyring.change_generated_master()
    fs.stop_after = None
    left = fs.power_failure("keep")
    assert left.read(f"{PATH}/keys").count(b"[[wrapping]]") == 2
    tidied = deepcopy(left)
    with opened(tidied):
        pass
    left.fail_at, left.fail_with = tidied.calls.index(("pwrite", f"{PATH}/keys.tmp")) + 1, errno.ENOSPC
    with opened(left) as store:
        assert store.entries == entries(8)
    assert left.read(f"{PATH}/keys").count(b"[[wrapping]]") == 2
    with opened(left):
        assert left.read(f"{PATH}/keys").count(b"[[wrapping]]") == 1


def test_creation_writes_the_master_key_before_what_it_opens_and_completes_the_directory_last() -> None:
    fs = MemoryFileSystem()
    with opened(fs):
        pass
    renames = [path for name, path in fs.calls if name == "rename" and not path.endswith(".seg")]
    assert renames == [f"{PATH}/{name}" for name in ("node.toml", "master.key", "keys", "node.toml")]


def test_migration_writes_the_keyring_first_and_node_toml_last() -> None:
    fs, _ = format_1(3)
    DataDirectory.open(fs, PATH).close()
    assert b"format = 1" in fs.read(f"{PATH}/node.toml"), "looking at a directory does not migrate it"
    fs.calls.clear()
    with opened(fs):
        pass
    renames = [path for name, path in fs.calls if name == "rename" and not path.endswith(".seg")]
    assert renames == [f"{PATH}/{name}" for name in ("master.key", "keys", "node.toml")]
