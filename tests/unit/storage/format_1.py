"""Data directories of format 1, as the versions before format 2 made them."""

from __future__ import annotations

from haptera.storage import DataDirectory, DataKey, Keyring, Log
from haptera.testing.filesystem import MemoryFileSystem
from tests.unit.storage.stores import LOG_PATH, PATH, SEGMENT_SIZE, entry

KEY = DataKey.of(b"1" * 32)
#: The node's id is sixteen times "n", and this is its CRC-32C.
NODE_TOML = b'format = 1\nnode_id = "' + (b"n" * 16).hex().encode() + b'"\ncheck = 1845720235\n'


def plain_keys(key: DataKey) -> bytes:
    """The file `keys` with a key in the clear."""
    return f'# The key of the data beside it.\nformat = 1\nid = "{key.id.hex()}"\nkey = "{key.secret.hex()}"\n'.encode()


def format_1(count: int) -> tuple[MemoryFileSystem, DataKey]:
    """A closed store of format 1 with `count` entries, and its key."""
    made = MemoryFileSystem()
    directory = DataDirectory.open(made, PATH)
    log = Log.open(made, directory, Keyring([KEY]), segment_size=SEGMENT_SIZE)
    assert not list(log.replay())
    for index in range(1, count + 1):
        log.append(entry(index))
    log.close()
    fs = MemoryFileSystem()
    for path in (PATH, LOG_PATH):
        fs.mkdir(path)
    fs.sync_directory("")
    fs.sync_directory(PATH)
    for name in made.listdir(LOG_PATH):
        data = made.read(f"{LOG_PATH}/{name}")
        if len(data) > 80:
            fs.write(f"{LOG_PATH}/{name}", data)
    fs.write(f"{PATH}/lock", b"")
    fs.write(f"{PATH}/node.toml", NODE_TOML)
    fs.write(f"{PATH}/keys", plain_keys(KEY))
    fs.calls.clear()
    return fs, KEY
