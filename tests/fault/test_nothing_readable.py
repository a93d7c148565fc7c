"""No file of a data directory shows a key, a value or a secret: not while it is written, and not after a crash."""

from __future__ import annotations

import base64
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec
import pytest

from haptera.errors import StorageError
from haptera.node import Node
from haptera.state import dump_pieces
from haptera.state.operations import Set
from haptera.storage import Archive, MasterKey, sealed_segments, write_snapshot
from haptera.storage.filesystem import write_file_atomically
from haptera.testing.filesystem import Crashed, MemoryFileSystem
from tests.unit.node.nodes import CONFIG, Asked, ImmediateWriter, turn
from tests.unit.node.offline.backups import backup_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY, VALUE = "marked-key/of the store", b"marked value, which nobody may read"
MASTER = MasterKey.of(b"master key, known to the test...")


def forms(text: bytes) -> list[bytes]:
    """The text as it could stand in a file: as it is, in hex, in Base64 at each of its alignments."""
    encoded = [base64.b64encode(bytes(shift) + text)[4 if shift else 0 : -4] for shift in range(3)]
    return [text, text.hex().encode(), text.hex().upper().encode(), *encoded]


def files(fs: MemoryFileSystem, path: str = "") -> Iterator[tuple[str, bytes]]:
    """Every file there is, whatever its name, or all below a directory."""
    for name in fs.listdir(path):
        below = f"{path}/{name}"
        try:
            yield below, fs.read(below)
        except IsADirectoryError:
            yield from files(fs, below)


def readable(fs: MemoryFileSystem, texts: list[bytes]) -> list[str]:
    """The files that show one of these texts."""
    wanted = [form for text in texts for form in forms(text)]
    return [name for name, data in files(fs) if any(form in data for form in wanted)]


async def life(fs: MemoryFileSystem, secrets: list[bytes], masters: list[bytes], key_file: Path | None) -> None:
    """Writes, keys of both kinds changed between them, snapshots, an archive and a backup, and an end.

    `secrets` gets the data keys, and `masters` the master keys.
    """
    config = msgspec.structs.replace(CONFIG, master_key_file=None if key_file is None else str(key_file))
    node = await Node.open(config, filesystem=fs, writer=ImmediateWriter())
    storage = node._storage
    secrets += [key.secret for key in storage.keyring.keys]
    masters.append(storage.keyring.master.secret)
    archive = Archive(fs, "/archive", storage.directory.node_id)
    archive.create()
    for number in range(2):
        Asked(node, Set(f"{KEY} {number}", VALUE))
        Asked(node, Set("large", VALUE * 2000))
        await turn()
        await node.key_rotation.rotate_data_key()
        secrets.append(storage.keyring.newest.secret)
        if key_file is None:
            await node.key_rotation.change_master_key()
            masters.append(storage.keyring.master.secret)
        pieces = dump_pieces(storage.machine)
        write_snapshot(fs, storage.directory.snapshots_path, storage.keyring, storage.log.roll(), node.revision, pieces)
        archive.add_keyring(storage.directory.read_keyring())
        for segment, path in sealed_segments(fs, storage.directory.log_path).items():
            if not archive.holds(segment, path):
                archive.add(segment, path)
        write_file_atomically(fs, "/archive", f"backup {number}", backup_of(storage))
    await node.aclose()


@pytest.mark.parametrize("given", [True, False])
async def test_no_file_shows_a_key_a_value_or_a_secret(tmp_path: Path, given: bool) -> None:
    """The generated master keys alone may stand in a file: their own, in the data directory."""
    key_file = tmp_path / "key" if given else None
    if key_file is not None:
        key_file.write_bytes(MASTER.format())
        key_file.chmod(0o600)
    secrets: list[bytes]
    masters: list[bytes]
    whole, secrets, masters = MemoryFileSystem(), [MASTER.secret], []
    await life(whole, secrets, masters, key_file)
    assert len(set(secrets)) == 4
    texts = [KEY.encode(), VALUE, *secrets]
    assert readable(whole, texts) == []
    shown = readable(whole, masters)
    assert len(shown) == len(set(masters)) * (not given)
    assert all(name.startswith("/data/master.key") for name in shown)
    assert {"/archive/keys/0000000000000001", "/archive/backup 1"} < dict(files(whole)).keys()
    assert any(name.startswith("/archive/log/") for name, _ in files(whole))
    assert any(name.endswith(".snap") for name, _ in files(whole))
    assert ("/data/master.key" in dict(files(whole))) is not given
    left_over = set()
    for stop in whole.changes():
        fs, secrets, masters = MemoryFileSystem(), [MASTER.secret], []
        fs.stop_after = stop
        with suppress(Crashed, StorageError):
            await life(fs, secrets, masters, key_file)
        fs.stop_after = None
        for left in (fs.power_failure("keep"), fs.power_failure("tear", stop)):
            assert readable(left, [KEY.encode(), VALUE, *secrets]) == [], stop
            assert all(name.startswith("/data/master.key") for name in readable(left, masters)), stop
            left_over |= {name.rpartition("/")[2] for name, _ in files(left) if name.endswith(".tmp")}
    assert {"keys.tmp", "node.toml.tmp"} < left_over
    assert any(name.endswith(".seg.tmp") for name in left_over)
    assert any(name.endswith(".snap.tmp") for name in left_over)
    assert "backup 1.tmp" in left_over


def test_the_search_finds_what_it_looks_for() -> None:
    fs = MemoryFileSystem()
    fs.mkdir("/data")
    fs.mkdir("/data/below")
    for at, form in enumerate(forms(VALUE)):
        fs.write(f"/data/below/{at}", b"before " + form + b" behind")
    for shift in range(3):
        fs.write(f"/data/{shift}", base64.b64encode(b"x" * shift + VALUE + b"more"))
    assert len(readable(fs, [VALUE])) == len(forms(VALUE)) + 3
    assert readable(fs, [b"another text"]) == []
