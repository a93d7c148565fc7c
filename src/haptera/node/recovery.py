"""Recovery: the state of a node, rebuilt from its log. This is the one place that does it."""

from __future__ import annotations

import gc
import logging
import time
from typing import TYPE_CHECKING, Final

from haptera.errors import CorruptionError
from haptera.node.apply_committed import ApplyFailed
from haptera.node.master_key import MasterKeySource
from haptera.state import MalformedCommands, StateMachine, decode_commands
from haptera.storage import DIRECTORY_FORMAT, DataDirectory, Log, open_keyring

if TYPE_CHECKING:
    from haptera.node.config import NodeConfig
    from haptera.storage import FileSystem, StoredKeyring

_logger = logging.getLogger(__name__)

#: Seconds between two lines that say how far a recovery is.
PROGRESS_INTERVAL_S: Final = 1.0


class DurableState:
    """A node's data directory, its log, and the state machine that the log is replayed into. All of it blocks."""

    def __init__(self, config: NodeConfig, filesystem: FileSystem) -> None:
        self.machine = StateMachine()
        self.master_key_source: MasterKeySource
        self.directory: DataDirectory
        self.keyring: StoredKeyring
        self.log: Log
        self.abandoned = False
        self._config = config
        self._fs = filesystem
        self._opened: list[DataDirectory | Log] = []
        self._started = 0.0
        self._reported = 0.0

    def open(self) -> None:
        """Lock the directory, find its keys, and replay its log."""
        config = self._config
        self.master_key_source = MasterKeySource(config)
        master = self.master_key_source.read()  # before there is a directory, which a wrong option should not make
        self.directory = DataDirectory.open(self._fs, config.data_dir)
        self._opened.append(self.directory)
        self.keyring = open_keyring(self.directory, master)
        self.log = Log.open(
            self._fs,
            self.directory,
            self.keyring,
            segment_size=config.segment_size,
            durability=config.durability,
            on_progress=self._on_progress,
        )
        self._opened.append(self.log)
        self._started = self._reported = time.monotonic()
        collecting = gc.isenabled()
        # The state is millions of objects and no cycle: to look for cycles among them would take most of the time.
        gc.disable()
        try:
            self._replay()
        finally:
            if collecting:
                gc.enable()

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

    def _replay(self) -> None:
        apply = self.machine.apply
        for entry in self.log.replay():
            try:
                commands = decode_commands(entry.payload)
            except MalformedCommands as error:
                # The record is whole and decrypts, so no disk did this.
                raise CorruptionError(
                    self.directory.log_path, 0, f"commands in the entry of index {entry.index}", str(error)
                ) from error
            try:
                apply(entry.index, entry.time_ms, commands)
            except Exception as error:
                raise ApplyFailed(entry.index, error) from error
            if self.abandoned:
                return
        self.machine.build_index()
        self._report_end()

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

    def _report_end(self) -> None:
        recovery, seconds = self.log.recovery, time.monotonic() - self._started
        if recovery.torn_bytes:
            _logger.warning(
                "torn_tail_cut_off",
                extra={"file": recovery.file, "offset": recovery.offset, "bytes": recovery.torn_bytes},
            )
        _logger.info(
            "recovered",
            extra={
                "entries": recovery.entries,
                "bytes": recovery.bytes,
                "seconds": round(seconds, 3),
                "entries_per_second": _rate(recovery.entries, seconds),
                "keys": len(self.machine.kv.entries),
                "revision": self.machine.revision,
                "index": self.machine.index,
            },
        )


def _rate(entries: int, seconds: float) -> int:
    return round(entries / max(seconds, 0.001))
