"""The fuzz targets of the store: arguments of the services kv and admin, logged commands, snapshots, the recovery of
the log, and backups.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any, Final

import msgspec

from haptera.errors import CorruptionError, DamagedBackup, Failure, StorageError
from haptera.node.services.admin_methods import ADMIN_METHODS
from haptera.node.services.kv_methods import METHODS
from haptera.state.command_encoding import Logged, UnknownPart, decode_commands, encode_commands, size_bound
from haptera.state.limits import COMMAND_SIZE_MAX
from haptera.state.machine import StateMachine
from haptera.state.operations import AsOf, Count, OpenHistory, OpenScan, OpenWatch, Operation, Read, Write, read_of
from haptera.state.piece_decoding import MalformedPieces
from haptera.state.sliced_work import finish
from haptera.state.snapshot_pieces import dump_pieces, load_pieces
from haptera.state.validation import validate
from haptera.storage import BackupReader, DataDirectory, DataKey, Keyring, Log, LogEntry
from haptera.storage.backup.format import MANIFEST_SIZE_MAX
from haptera.storage.errors import NewerFormat, WrongKey
from haptera.testing.filesystem import MemoryFileSystem
from haptera.wire.payload import encode_payload

#: More pages than the prepared store has keys.
PAGES_MAX: Final = 100

# -- arguments and commands -----------------------------------------------------------------------------------------

#: The methods of the services kv and admin; no name is in both.
ALL_METHODS: Final[dict[str, Any]] = {**METHODS, **ADMIN_METHODS}
_METHOD_NAMES: Final = tuple(ALL_METHODS)


def check_arguments(data: bytes) -> None:
    """Any argument is an operation that can be logged, applied and answered, or 3003, or a transact of too many parts;
    nothing in it is lost.
    """
    name = _METHOD_NAMES[(data[0] if data else 0) % len(_METHOD_NAMES)]
    payload = data[1:]
    op = ALL_METHODS[name].decode(payload)
    if isinstance(op, Failure):
        assert op.code == 3003 or (name, op.code) == ("transact", 4008)
        assert op.outcome == "not_applied"
        assert encode_payload(op)
        return
    # The same value by the way of an embedded client, which never sees bytes.
    assert ALL_METHODS[name].convert(msgspec.msgpack.decode(payload)) == op
    refused = validate(op)
    if refused is not None:
        assert refused.outcome == "not_applied"
        assert encode_payload(refused)
        return
    machine = _machine()
    if isinstance(read_of(op), OpenScan):
        _check_scan(machine, op)
    elif isinstance(read_of(op), Count) and isinstance(op, AsOf):
        pass  # made of a scan of its keys
    elif isinstance(op, AsOf | OpenHistory):
        found = finish(machine.read_steps(op, COMMAND_SIZE_MAX))
        if isinstance(found, Failure):
            assert encode_payload(found)
        else:
            assert msgspec.msgpack.encode(found[0])
    elif isinstance(op, Write):
        payload = encode_commands([Logged(op)])
        assert len(payload) <= size_bound(op) + 64
        assert decode_commands(payload) == [Logged(op)]
        (result,) = machine.apply(3, 3, [Logged(op)])
        assert msgspec.msgpack.encode(result)
    else:
        assert isinstance(op, Read | OpenWatch)
        assert isinstance(op, OpenWatch) or msgspec.msgpack.encode(machine.read(op))


def _check_scan(machine: StateMachine, asked: Operation) -> None:
    """The pages of a scan come to an end, in order, and have each key once."""
    at, op = asked if isinstance(asked, AsOf) else None, read_of(asked)
    assert isinstance(op, OpenScan)
    cursor = machine.open_scan(op, at=at)
    if isinstance(cursor, Failure):
        assert at is not None
        assert cursor.code == 4009
        return
    keys: list[str] = []
    for _ in range(PAGES_MAX):
        page = cursor.page(200, 2)
        assert not isinstance(page, Failure)
        assert msgspec.msgpack.encode(page.rows)
        keys += [key for key, *_ in page.rows]
        if page.done:
            break
    else:
        raise AssertionError("a scan does not end")
    assert keys == sorted(set(keys), reverse=op.reverse)
    assert op.limit is None or len(keys) <= op.limit
    counted = machine.read(Count(op.prefix, op.start, op.end, op.glob))
    assert at is not None or op.limit is not None or op.after is not None or counted == (len(keys),)


def _machine() -> StateMachine:
    """A few keys to work on, some of them numbers."""
    machine = StateMachine()
    for index, (method, argument) in enumerate(_PREPARED, 1):
        op: Any = METHODS[method].convert(argument)
        machine.apply(index, index, [Logged(op)])
    return machine


_PREPARED: Final[tuple[tuple[str, tuple[Any, ...]], ...]] = (
    ("set_many", ([["a", b"1"], ["b", b"x" * 300], ["c/1", b""], ["c/2", b"9223372036854775807"], ["k", b"v"]],)),
    ("set", ("é", b"v")),
)


def check_commands(data: bytes) -> None:
    """Any payload of an entry is commands, a newer format's, or malformed; commands are kept as they were."""
    try:
        commands = decode_commands(data)
    except UnknownPart as error:
        assert len(str(error)) < 300
    except ValueError:
        pass
    else:
        assert decode_commands(encode_commands(commands)) == commands


# -- snapshots -------------------------------------------------------------------------------------------------------

_REQUEST_ID: Final = bytes(range(16))
_VERIFIER: Final = (bytes(16), 4096, bytes(32), bytes(32))
ACCESS_ROWS: Final = (
    ("role", "app", ("ops",), None, False, None, (("*", ("metrics",)), ("a/*", ("read", "write")))),
    ("role", "ops", ("admin",)),
    ("user", "ann", ("app",), None, True),
    ("user", "root", ("admin",), _VERIFIER),
    ("token", "token:1", ("app",), _VERIFIER, False, 100),
    ("token", "token:2", ("app",), _VERIFIER, False, None, (), "ann"),
)
QUOTA_ROWS: Final = (("ann", 5, None, None, 2, (3,), ("a",)), ("root", None, 1000, 0, None, (), ("b",)))
NODE_HEAD: Final = ("move", 20, 7, bytes(range(32)))
_PIECES: Final = [
    ("kv", msgspec.msgpack.encode((5, 1, 2))),
    ("kv", msgspec.msgpack.encode((("a", "b"), (b"1", b""), (2, 5)))),
    ("requests", msgspec.msgpack.encode((20, 1))),
    ("requests", msgspec.msgpack.encode((("app", _REQUEST_ID, 10, bytes(32), (5, None), None),))),
    ("leases", msgspec.msgpack.encode((1,))),
    ("leases", msgspec.msgpack.encode(((3, 1000, ("b",)),))),
    ("access", msgspec.msgpack.encode((3, 2, 2, 2))),
    ("access", msgspec.msgpack.encode(ACCESS_ROWS)),
    ("node", msgspec.msgpack.encode(NODE_HEAD)),
    ("quotas", msgspec.msgpack.encode((2,))),
    ("quotas", msgspec.msgpack.encode(QUOTA_ROWS)),
]


def check_pieces(data: bytes) -> None:
    """A snapshot with any bytes in place of one of its pieces is a whole state, a newer format, or malformed."""
    pieces = list(_PIECES)
    at = (data[0] if data else 0) % len(pieces)
    pieces[at] = (pieces[at][0], data[1:])
    try:
        machine = load_pieces(pieces, index=9, time_ms=20)
    except UnknownPart as error:
        assert len(str(error)) < 300
    except MalformedPieces:
        pass
    else:
        machine.check()
        again = load_pieces(dump_pieces(machine), index=9, time_ms=20)
        assert again.digest() == machine.digest()


# -- storage ---------------------------------------------------------------------------------------------------------

KEYRING: Final = Keyring([DataKey.of(bytes(32))])
DIRECTORY: Final = "/data"
SEGMENT: Final = "/data/log/0000000000000001.seg"
_NEXT: Final = b"appended"


def check_log(data: bytes) -> None:
    """A log whose only segment is any bytes opens, and then opens again with the same entries, or is refused."""
    durable = not (data and data[0] & 1)
    fs = MemoryFileSystem()
    DataDirectory.open(fs, DIRECTORY).close()
    file = fs.open(SEGMENT, "x")
    file.pwrite(data[1:], 0)
    file.fsync()
    file.close()
    fs.sync_directory("/data/log")
    try:
        entries = _replay(fs, durable=durable, append=True)
    except (CorruptionError, NewerFormat, WrongKey) as error:
        assert SEGMENT in str(error)
        try:
            _replay(fs, durable=durable, append=False)
        except StorageError as again:
            assert str(again) == str(error), "a refused log was changed"
        else:
            raise AssertionError("a refused log was changed") from error
        return
    for index, entry in enumerate(entries, 1):
        assert entry.index == index
    # After a power failure that loses all that was not synced.
    kept = _replay(fs.power_failure("drop", seed=0), durable=True, append=False)
    assert kept[: len(entries)] == entries
    assert [entry.payload for entry in kept[len(entries) :]] == [_NEXT][: 1 if durable else len(kept) - len(entries)]


def _replay(fs: MemoryFileSystem, *, durable: bool, append: bool) -> list[LogEntry]:
    """Open the log, read it, and add one entry if asked to. Any error but of storage is a finding."""
    directory = DataDirectory.open(fs, DIRECTORY)
    try:
        log = Log.open(fs, directory, KEYRING, segment_size=400, durability="sync" if durable else "os")
        entries = list(log.replay())
        if append:
            last = entries[-1] if entries else LogEntry(0, 0, 0, b"")
            log.append(LogEntry(last.term, last.index + 1, last.time_ms, _NEXT))
        return entries
    except StorageError as error:
        assert isinstance(error, (CorruptionError, NewerFormat, WrongKey)), f"{type(error)}: {error}"
        raise
    finally:
        directory.close()


# -- backups ---------------------------------------------------------------------------------------------------------


def check_backup(data: bytes) -> None:
    """A stream is a whole backup, which only the holder of the data key can make, or it is refused.

    Nothing is read beyond what is there, and what is handed out before a fault is what the manifest announces.
    """
    source = BytesIO(data)
    asked: list[int] = []

    def read(size: int) -> bytes:
        asked.append(size)
        return source.read(size)

    try:
        reader = BackupReader("backup", read, lambda *_: KEYRING)
        sizes = dict.fromkeys(reader.manifest.files, 0)
        for file, piece in reader.chunks():
            sizes[file] += len(piece)
            assert sizes[file] <= file.size
    except DamagedBackup as error:
        assert error.file == "backup"
        assert 0 <= error.offset <= len(data)
    except NewerFormat:
        pass
    else:
        assert reader.offset == reader.size == len(data)
        assert all(size == file.size for file, size in sizes.items())
    assert max(asked) <= MANIFEST_SIZE_MAX
