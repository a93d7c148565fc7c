"""Recovery: the state of a node, rebuilt from a snapshot and the log behind it. This is the one place that does it."""

from __future__ import annotations

import gc
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from haptera.errors import CorruptionError, OutdatedCopy
from haptera.node.apply_committed import ApplyFailed
from haptera.node.audit.chain import BEGINNING, Head
from haptera.node.audit.event_line import hashed_keys, plain_key
from haptera.node.audit.files import AuditFiles, Sizes
from haptera.node.audit.found_files import AUDIT_DIRECTORY
from haptera.node.master_key import MasterKeySource
from haptera.replication import TERM
from haptera.state import (
    SERVER_ID_SIZE,
    EventBounds,
    Logged,
    MalformedCommands,
    MalformedPieces,
    StateMachine,
    decode_commands,
    encode_commands,
    load_pieces,
    operations,
)
from haptera.storage import (
    DIRECTORY_FORMAT,
    DataDirectory,
    DiskFailed,
    Log,
    LogEntry,
    LogPoint,
    SnapshotFile,
    SnapshotReader,
    find_snapshots,
    open_keyring,
    remove_unfinished_snapshots,
)

if TYPE_CHECKING:
    from haptera.node.config import NodeConfig
    from haptera.storage import FileSystem, Keyring, StoredKeyring

_logger = logging.getLogger(__name__)

#: Seconds between two lines that say how far a recovery is.
PROGRESS_INTERVAL_S: Final = 1.0

#: Bytes that the log keeps for deletes on a full disk, or a segment's where that is less: some 40,000 deletes.
RESERVE_SIZE_MAX: Final = 4 * 1024 * 1024

#: Of the secret under which keys are hashed for the audit log.
_AUDIT_PURPOSE: Final = b"haptera audit keys/1"

#: Gives the entries behind a point of the log.
EntriesAfter = Callable[[LogPoint], Iterable[LogEntry]]


class Abandoned(Exception):
    """A recovery was told to stop."""


@dataclass(slots=True)
class Recovered:
    """A state machine, and its origin: the snapshot that it was loaded from, if there was one, and the damaged ones
    that are newer. ``snapshots`` are all that were found, newest first.
    """

    machine: StateMachine
    snapshot: SnapshotFile | None = None
    seconds: float = 0.0
    damaged: list[SnapshotFile] = field(default_factory=list)
    snapshots: list[SnapshotFile] = field(default_factory=list)


def recover(
    fs: FileSystem,
    log_path: str,
    snapshots_path: str,
    keyring: Keyring,
    entries_after: EntriesAfter,
    *,
    index_max: int | None = None,
    abandoned: Callable[[], bool] = lambda: False,
    on_loading: Callable[[int, int], None] = lambda done, total: None,
    on_damage: Callable[[SnapshotFile], None] = lambda file: None,
    bounds: EventBounds | None = None,
) -> Recovered:
    """Make the state of a directory: load its newest snapshot that is whole, and apply the entries behind it.

    `entries_after` is called once, with the point of that snapshot (`LogPoint.START` without one), and gives the
    entries to be applied. Snapshots of a later index than `index_max` are left aside. A snapshot that is damaged is
    reported (`snapshot_damaged`), and the one before it is taken. `on_loading` is called for each piece of a snapshot
    with the bytes that are read, and the bytes in all; `on_damage` for each damaged snapshot, as soon as it is known.
    `bounds` are those of the event history.

    Raises the errors of `haptera.storage`: CorruptionError, OutdatedCopy, WrongKey, NewerFormat, DiskFailed;
    UnknownPart for a snapshot or a log that a newer version wrote; ApplyFailed; and Abandoned, when `abandoned` says
    so.
    """
    collecting = gc.isenabled()
    # The state is millions of objects and no cycle: to look for cycles among them would take most of the time.
    gc.disable()
    try:
        found, point = _load(fs, snapshots_path, keyring, index_max, abandoned, on_loading, on_damage, bounds)
        entries = entries_after(point)
        _apply(found.machine, entries, log_path, abandoned)
    finally:
        if collecting:
            gc.enable()
    if index_max is None:
        for file in found.damaged:
            if file.index > found.machine.index:
                raise OutdatedCopy(log_path, f"entries up to index {file.index}", f"a log up to {found.machine.index}")
    found.machine.build_index()
    return found


def _load(
    fs: FileSystem,
    path: str,
    keyring: Keyring,
    index_max: int | None,
    abandoned: Callable[[], bool],
    on_loading: Callable[[int, int], None],
    on_damage: Callable[[SnapshotFile], None],
    bounds: EventBounds | None,
) -> tuple[Recovered, LogPoint]:
    started = time.monotonic()
    damaged: list[SnapshotFile] = []
    snapshots = find_snapshots(fs, path)
    for file in snapshots:
        if index_max is not None and file.index > index_max:
            continue
        try:
            with SnapshotReader(fs, file.path, keyring) as reader:
                pieces = _watched(reader, abandoned, on_loading)
                machine = load_pieces(pieces, index=reader.point.index, time_ms=reader.point.time_ms, bounds=bounds)
                point = reader.point
        except (CorruptionError, MalformedPieces, DiskFailed) as error:
            _report_damage(file, error)
            damaged.append(file)
            on_damage(file)
        else:
            return Recovered(machine, file, time.monotonic() - started, damaged, snapshots), point
    return Recovered(StateMachine(bounds), damaged=damaged, snapshots=snapshots), LogPoint.START


def _watched(
    reader: SnapshotReader, abandoned: Callable[[], bool], on_loading: Callable[[int, int], None]
) -> Iterator[tuple[str, bytes]]:
    for piece in reader.pieces():
        if abandoned():
            raise Abandoned
        on_loading(reader.offset, reader.size)
        yield piece


def _apply(machine: StateMachine, entries: Iterable[LogEntry], log_path: str, abandoned: Callable[[], bool]) -> None:
    apply = machine.apply
    for entry in entries:
        try:
            commands = decode_commands(entry.payload)
        except MalformedCommands as error:
            # The record is whole and decrypts, so no disk did this.
            raise CorruptionError(log_path, 0, f"commands in the entry of index {entry.index}", str(error)) from error
        try:
            apply(entry.index, entry.time_ms, commands)
        except Exception as error:
            raise ApplyFailed(entry.index, error) from error
        if abandoned():
            raise Abandoned


def _report_damage(file: SnapshotFile, error: CorruptionError | MalformedPieces | DiskFailed) -> None:
    damage = (
        {"offset": error.offset, "expected": error.expected, "actual": error.actual}
        if isinstance(error, CorruptionError)
        else {"reason": str(error)}
    )
    _logger.error(
        "snapshot_damaged",
        extra={"file": file.path, **damage, "meaning": "the snapshot before it is taken, with more of the log"},
    )


class DurableState:
    """A node's data directory, its log, and the state machine that both make. All of it blocks."""

    def __init__(self, config: NodeConfig, filesystem: FileSystem) -> None:
        self.machine: StateMachine
        self.master_key_source: MasterKeySource = MasterKeySource(config)
        self.directory: DataDirectory
        self.keyring: StoredKeyring
        self.recovered: Recovered
        self.log: Log
        self.audit: AuditFiles
        self._abandoned = False
        self._config = config
        self._fs = filesystem
        self._opened: list[FileSystem | DataDirectory | Log | AuditFiles] = [filesystem]
        self._started = 0.0
        self._reported = 0.0

    def open(self) -> None:
        """Lock the directory, find its keys, load its newest snapshot, and replay the log behind it."""
        master = self.master_key_source.read()  # before there is a directory, which a wrong option should not make
        self.directory = DataDirectory.open(self._fs, self._config.data_dir)
        self._opened.append(self.directory)
        self.keyring = open_keyring(self.directory, master)
        self._started = self._reported = time.monotonic()
        try:
            found = recover(
                self._fs,
                self.directory.log_path,
                self.directory.snapshots_path,
                self.keyring,
                self._open_log,
                abandoned=lambda: self._abandoned,
                on_loading=self._on_loading,
                bounds=EventBounds(self._config.history_events, self._config.history_bytes),
            )
        except Abandoned:
            return
        self.machine, self.recovered = found.machine, found
        remove_unfinished_snapshots(self._fs, self.directory.snapshots_path)
        self._report_end(found)

    def start(self, clock_ms: Callable[[], int]) -> None:
        """As `open`, and leave a gap where changes may be lost: no number that clients know is given once more. From
        then on changes may be taken. ``clock_ms`` gives Unix milliseconds.
        """
        self.open()
        if self._abandoned:
            return
        self.audit = self._open_audit(clock_ms)
        if self.log.changes_lost:
            self._leave_gap(clock_ms)

    def _open_audit(self, clock_ms: Callable[[], int]) -> AuditFiles:
        config, key = self._config, self.keyring.newest
        hashes = config.audit_keys == "hashed"
        key_form = hashed_keys(key.derived(_AUDIT_PURPOSE), key.id.hex()) if hashes else plain_key
        path = os.path.join(self.directory.path, AUDIT_DIRECTORY)
        sizes = Sizes(config.audit_file_size, config.audit_retain)
        files = AuditFiles(self._fs, path, sizes, clock_ms=clock_ms, key_form=key_form)
        self._opened.append(files)
        noted = self.machine.node.audit_head
        files.open(BEGINNING if noted is None else Head(noted.sequence, noted.digest))
        return files

    def _leave_gap(self, clock_ms: Callable[[], int]) -> None:
        machine = self.machine
        index, before = machine.index + 1, machine.revision
        commands = [Logged(operations.LeaveGap(os.urandom(SERVER_ID_SIZE)))]
        entry = LogEntry(TERM, index, max(machine.time_ms, clock_ms()), encode_commands(commands))
        self.log.append(entry, frees=True)
        try:
            machine.apply(index, entry.time_ms, commands)
        except Exception as error:
            raise ApplyFailed(index, error) from error
        self.log.settle()
        _logger.warning(
            "gap_left",
            extra={
                "before": before,
                "behind": machine.revision,
                "server_id": machine.kv.gaps.server_id.hex(),
                "meaning": "changes may be lost behind the first revision, so none up to the second is given again",
            },
        )

    def abandon(self) -> None:
        """Have an `open` that runs in another thread return soon, or fail."""
        self._abandoned = True
        self.master_key_source.stop()

    @property
    def migrated_from(self) -> int | None:
        """The older format that the directory had before it was opened, if it had one."""
        return self.directory.format if self.directory.format < DIRECTORY_FORMAT else None

    def close(self) -> None:
        """Seal the log and release the directory, as far as they were opened, even if a step of it fails."""
        if self._opened:
            try:
                self._opened.pop().close()
            finally:
                self.close()

    def _open_log(self, start: LogPoint) -> Iterator[LogEntry]:
        config = self._config
        self.log = Log.open(
            self._fs,
            self.directory,
            self.keyring,
            start=start,
            segment_size=config.segment_size,
            durability=config.durability,
            reserve_size=min(config.segment_size, RESERVE_SIZE_MAX),
            on_progress=self._on_progress,
        )
        self._opened.append(self.log)
        return self.log.replay()

    def _on_loading(self, bytes_done: int, bytes_total: int) -> None:
        now = time.monotonic()
        if now - self._reported >= PROGRESS_INTERVAL_S:
            self._reported = now
            _logger.info("loading_snapshot", extra={"bytes": bytes_done, "bytes_total": bytes_total})

    def _on_progress(self, entries: int, bytes_done: int, bytes_total: int) -> None:
        now = time.monotonic()
        if now - self._reported >= PROGRESS_INTERVAL_S:
            self._reported = now
            _logger.info(
                "recovering",
                extra={
                    "entries": entries,
                    "bytes": bytes_done,
                    "bytes_total": bytes_total,
                    "entries_per_second": _rate(entries, now - self._started),
                },
            )

    def _report_end(self, found: Recovered) -> None:
        recovery, seconds = self.log.recovery, time.monotonic() - self._started
        if recovery.torn_bytes:
            _logger.warning(
                "torn_tail_cut_off",
                extra={"file": recovery.file, "offset": recovery.offset, "bytes": recovery.torn_bytes},
            )
        snapshot = found.snapshot
        of_snapshot = (
            {}
            if snapshot is None
            else {
                "snapshot_index": snapshot.index,
                "snapshot_bytes": snapshot.size_bytes,
                "snapshot_seconds": round(found.seconds, 3),
            }
        )
        if found.damaged:
            of_snapshot["snapshots_damaged"] = len(found.damaged)
        _logger.info(
            "recovered",
            extra={
                "entries": recovery.entries,
                "bytes": recovery.bytes,
                "seconds": round(seconds, 3),
                "entries_per_second": _rate(recovery.entries, seconds - found.seconds),
                "keys": len(self.machine.kv.entries),
                "revision": self.machine.revision,
                "index": self.machine.index,
                **of_snapshot,
            },
        )


def _rate(entries: int, seconds: float) -> int:
    return round(entries / max(seconds, 0.001))
