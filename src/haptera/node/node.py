"""A node: a data directory, the state that its log makes, and the pipeline and services on top of them."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from types import MappingProxyType
from typing import TYPE_CHECKING

from haptera import defaults, forks
from haptera.boot_clock import boot_time_ns
from haptera.node.archiver import Archiver
from haptera.node.audit.audit import Audit
from haptera.node.backups import Backups
from haptera.node.commands import Commands
from haptera.node.commit import CommitPipeline
from haptera.node.entry_clock import SLEW, EntryClock
from haptera.node.expiry import Expiry
from haptera.node.garbage_collection import Collector
from haptera.node.key_rotation import KeyRotation
from haptera.node.leases import LeaseKeeper
from haptera.node.memory_limit import MemoryLimit
from haptera.node.metrics import Metrics
from haptera.node.recovery import DurableState
from haptera.node.scans import Scans
from haptera.node.slice_queue import Turns
from haptera.node.snapshots import keep_snapshots
from haptera.node.start_warnings import warn_at_start
from haptera.node.watches import Watches
from haptera.replication import Writers
from haptera.state import Logged, limits, node_operations
from haptera.storage import OsFileSystem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from haptera.node.config import NodeConfig
    from haptera.node.frontend import Dialect
    from haptera.node.master_key import Origin
    from haptera.node.snapshots.keeper import SnapshotKeeper
    from haptera.replication import RecordWriter, Writer
    from haptera.state import Access, MaintenancePeriod
    from haptera.storage import FileSystem
    from haptera.transport import TlsKeeper

_logger = logging.getLogger(__name__)


class Node:
    """An open node. Make it with `Node.open`, end it with `aclose`.

    ``commands`` is its command interface, ``backups`` makes its backups, ``archiver`` keeps its archive, if it has one,
    ``key_rotation`` changes its keys, ``memory`` bounds the memory of its store, ``metrics`` is its registry, ``audit``
    its audit log, ``config`` its configuration, ``clock_ms`` the wall clock: Unix time in milliseconds. ``failed``
    resolves to the error when the node cannot go on: a DiskFailed when it cannot write any more, and reads go on until
    it is closed; an ApplyFailed when its state is broken, and nothing is read any more either. The owner of the node
    closes it then. ``connections`` is the number of its connections; a listener counts them.
    """

    #: The files of TLS of the listeners that have it.
    tls: tuple[TlsKeeper, ...] = ()
    #: The dialects that its listeners may be of.
    dialects: Mapping[str, Dialect] = MappingProxyType({})
    #: Called when users, roles or tokens have changed; its listeners set it.
    on_access_changed: Callable[[], None] | None = None
    _access_revision = 0

    def __init__(
        self,
        config: NodeConfig,
        storage: DurableState,
        loop: asyncio.AbstractEventLoop,
        clock_ms: Callable[[], int],
        monotonic_ns: Callable[[], int],
        writers: Writers,
        archive_writer: Writer | None,
        *,
        second_process: bool,
    ) -> None:
        self.config = config
        self.metrics: Metrics = Metrics()
        self.collector: Collector = Collector()
        self.clock_ms = clock_ms
        self.connections = 0
        self.failed: asyncio.Future[BaseException] = loop.create_future()
        self.failed_at: float = 0.0  # of the loop
        self._loop = loop
        self._storage = storage
        self._machine = machine = storage.machine
        self._started = loop.time()
        self._monotonic_ns = monotonic_ns
        self._entry_clock = EntryClock(self._machine.time_ms, clock_ms(), monotonic_ns())
        self._entry_time_ms()  # says it at once if the log is far ahead of the wall clock
        self._turns = Turns(loop)
        self._scans = Scans(machine, loop, self.metrics, self._turns)
        self.memory: MemoryLimit = MemoryLimit(machine, config.memory_max, self.metrics)
        self._pipeline = CommitPipeline(
            machine=machine,
            log=storage.log,
            writers=writers,
            loop=loop,
            entry_time_ms=self._entry_time_ms,
            metrics=self.metrics,
            memory=self.memory,
            turns=self._turns,
            published=self._publish,
            on_entry=self._on_entry,
            on_applied=self._on_applied,
            on_failure=self._on_failure,
        )
        self._turns.hurried = lambda: self._pipeline.pending > 0
        machine.read_by(self._pipeline.read_time_ms)
        #: Has the keys removed whose time has come.
        self.expiry: Expiry = Expiry(machine, self._pipeline, self._turns, loop, self.metrics, self._entry_time_ms)
        #: Ends the leases that are not renewed.
        self.leases: LeaseKeeper = LeaseKeeper(machine, self._pipeline, self._turns, loop, self.metrics, monotonic_ns)
        #: Its snapshots, and the past that it keeps.
        self.snapshots: SnapshotKeeper = keep_snapshots(
            config,
            storage,
            on_writer=self._pipeline.on_writer,
            loop=loop,
            metrics=self.metrics,
            time_ms=self._entry_time_ms,
            held_back=lambda: None if self.archiver is None else self.archiver.through + 1,
            second_process=second_process,
        )
        self.commands: Commands = Commands(machine, self._pipeline, self._scans, self._turns, self.metrics)
        #: The watches that follow its changes.
        self.watches: Watches = Watches(machine, self.commands, loop, self.metrics)
        self.backups: Backups = Backups(storage, self._pipeline, self.snapshots.retention, clock_ms)
        self.archiver: Archiver | None = Archiver.of(storage.directory, config.archive_dir, loop, archive_writer)
        self.key_rotation: KeyRotation = KeyRotation(storage, self._pipeline)
        self.audit: Audit = Audit(storage.audit, self._pipeline.on_writer, loop, clock_ms, monotonic_ns, self.metrics)
        self._closing: asyncio.Future[None] | None = None
        self._pid = os.getpid()
        self._forked_from = 0  # in a forked child, the process that has the directory
        forks.watch(self)
        self._measure()

    @classmethod
    async def open(
        cls,
        config: NodeConfig,
        *,
        filesystem: FileSystem | None = None,
        clock_ms: Callable[[], int] | None = None,
        monotonic_ns: Callable[[], int] | None = None,
        writer: Writer | None = None,
        records: RecordWriter | None = None,
        archive_writer: Writer | None = None,
    ) -> Node:
        """Open the data directory (made if there is none), replay its log, and return the node ready for commands.

        `filesystem` stands in for the operating system's files, `writer` for the thread that writes to them, `records`
        for the kernel that does it without one, and `archive_writer` for the thread that copies to the archive;
        `clock_ms` for the wall clock (Unix time in milliseconds) and `monotonic_ns` for the one that is never set
        (nanoseconds since any moment). Raises the errors of `haptera.storage`: DirectoryInUse, CorruptionError,
        WrongKey, MissingKey, NewerFormat, DiskFull, DiskFailed; UnknownPart for a log that a newer version wrote; and
        ApplyFailed.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        storage = DurableState(config, filesystem or OsFileSystem())
        # In a thread: a long replay must not stop the loop of a program that opens a store within itself.
        replay = loop.run_in_executor(None, storage.start, clock_ms or _unix_time_ms)
        try:
            await asyncio.shield(replay)
        except asyncio.CancelledError:
            storage.abandon()
            await asyncio.wait([replay])
            storage.close()
            raise
        except BaseException:
            storage.close()
            raise
        warn_at_start(config, storage)
        node = cls(
            config,
            storage,
            loop,
            clock_ms or _unix_time_ms,
            monotonic_ns or boot_time_ns,
            Writers.open(loop, writer, records, by_ring=filesystem is None and config.log_writer == "auto"),
            archive_writer,
            second_process=filesystem is None,
        )
        node._started = started
        node.audit.note_head = node._note_audit_head
        node.commands.aging.look()
        node.expiry.look()
        node.leases.begin()
        node.snapshots.start()
        if node.archiver is not None:
            node.archiver.start()
        return node

    @property
    def node_id(self) -> bytes:
        """16 bytes, chosen when the data directory was made."""
        return self._storage.directory.node_id

    @property
    def server_id(self) -> bytes:
        """The 16 bytes under which the store is served: another id than before where changes may have been lost."""
        return self._machine.kv.gaps.server_id or self.node_id

    @property
    def data_dir(self) -> str:
        """The path of the data directory."""
        return self._storage.directory.path

    @property
    def master_key_path(self) -> str | None:
        """The file of the master key beside the data; None where a master key was given."""
        return self._storage.directory.master_key_path if self._storage.keyring.generated else None

    @property
    def master_key_origin(self) -> Origin:
        """Where the master key is from."""
        return self._storage.master_key_source.origin

    @property
    def master_key_id(self) -> bytes:
        """The id of the master key, 8 bytes."""
        return self._storage.keyring.master.id

    @property
    def local_socket_path(self) -> str:
        """Where the node's listener for this machine belongs, as an absolute path."""
        return os.path.join(os.path.abspath(self.data_dir), defaults.SOCKET_NAME)

    @property
    def revision(self) -> int:
        """The store's applied revision."""
        return self._machine.revision

    def roles_of(self, user: str) -> tuple[str, ...]:
        """The roles that a user or a token has by itself, in order."""
        return self._machine.access.roles_of(user)

    @property
    def index(self) -> int:
        """The index of the last entry that was applied."""
        return self._machine.index

    @property
    def keys(self) -> int:
        """How many keys there are."""
        return len(self._machine.kv.entries)

    @property
    def access(self) -> Access:
        """The users, the roles and the tokens."""
        return self._machine.access

    def read_time_ms(self) -> int:
        """The time by which reads judge, in Unix milliseconds: that of the entry which could be written now."""
        return self._pipeline.read_time_ms()

    @property
    def remembered_answers(self) -> tuple[int, int]:
        """How many answers are remembered for the user who has most of them, and how many may be."""
        return self._machine.requests.most, limits.ANSWERS_PER_USER_MAX

    @property
    def maintenance(self) -> MaintenancePeriod | None:
        """The maintenance during which changes are refused; None where they are taken."""
        return self._machine.node.maintenance

    @property
    def uptime_ms(self) -> int:
        """Milliseconds since the node began to open."""
        return int((self._loop.time() - self._started) * 1000)

    @property
    def full(self) -> bool:
        """Whether writes are refused because the disk is full."""
        return self._pipeline.full

    @property
    def shortage(self) -> int:
        """The errno of the shortage for which writes were refused last."""
        return self._pipeline.shortage

    @property
    def full_since(self) -> float:
        """The time of the loop at which writes began to be refused for want of room."""
        return self._pipeline.full_since

    def wall_ms(self, time: float) -> int:
        """The wall clock's time at a time of the loop, in Unix milliseconds."""
        return self.clock_ms() - round((self._loop.time() - time) * 1000)

    @property
    def abandoned(self) -> bool:
        """Whether a stored change could not be applied, so that nothing is read any more."""
        return self._machine.abandoned is not None

    @property
    def stopping(self) -> bool:
        """Whether `aclose` has begun."""
        return self._closing is not None

    def freeze(self) -> None:
        """Take all that this process has now out of the garbage collector's sight, the store above all.

        For a process that is a node and nothing else: the store stays, and to look through a million keys takes the
        collector some fifty milliseconds in which nothing else happens.
        """
        self.collector.take_over(self._machine.keep_tracked)

    def disown(self, owner: int) -> None:
        """Leave the log and its lock to the process ``owner`` that this one was forked from (``haptera.forks`` calls
        this). Writes are refused from here on, and there is nothing to close.
        """
        self._forked_from = self._forked_from or owner
        self._pipeline.disown()
        self.snapshots.disown()

    def abandon(self) -> None:
        """Close a node whose loop was closed before it: wait for the disk, seal the log, release the directory. Blocks.

        In a process that was forked without Python's knowledge nothing of that is ours.
        """
        if self._pid == os.getpid():
            self.snapshots.abandon()
            self._pipeline.abandon()
            self.audit.abandon()
            self._storage.close()

    async def drain(self) -> None:
        """Return when every write that was submitted has its result."""
        if self._forked_from:
            return
        await self._pipeline.drain()

    async def aclose(self) -> None:
        """Refuse new writes, answer the rest, seal the log and release the directory. Safe to call again.

        Raises DiskFailed when the log could not be sealed; every answered write is durable all the same. A forked
        child has nothing to close.
        """
        if self._forked_from:
            return
        if self._closing is not None:
            await asyncio.shield(self._closing)
            return
        self._closing = self._loop.create_future()
        try:
            self._scans.close()
            self.watches.stop()
            self.commands.aging.stop()
            self.expiry.stop()
            self.leases.stop()
            if self.archiver is not None:
                await self.archiver.aclose()
            self.commands.write_forgotten()
            await self.snapshots.close()
            await self.audit.written()
            self.audit.note()
            await self._pipeline.stop()
            await self.audit.aclose()
            await self._pipeline.close()
            self._turns.close()
            await self._loop.run_in_executor(None, self._storage.close)
        finally:
            self._closing.set_result(None)

    @property
    def certificate_ends_at(self) -> int | None:
        """The Unix time in seconds at which the first certificate of a listener ends; None where there is none."""
        return min((tls.ends_at for tls in self.tls if tls.ends_at is not None), default=None)

    @property
    def revocations_end_at(self) -> int | None:
        """The Unix time in seconds at which the first list of revoked certificates ends; None where there is none."""
        ends = [tls.current.revocations_end_at for tls in self.tls]
        return min((end for end in ends if end is not None), default=None)

    def _measure(self) -> None:
        """Say where the numbers of this node come from that another part has already."""
        self.metrics.measure(
            {
                "archive_lag_segments": lambda: self.archiver.lag if self.archiver else 0,
                "audit_size_bytes": lambda: self.audit.size,
                "audit_waiting": lambda: self.audit.waiting,
                "entries_size_bytes": lambda: self._machine.size,
                "entry_time_offset_seconds": lambda: (self._entry_time_ms() - self.clock_ms()) / 1000,
                "index": lambda: self._machine.index,
                "keys": lambda: self.keys,
                "leases": lambda: self.leases.count,
                "keys_leased": lambda: self._machine.leases.attached,
                "keys_expiring": lambda: self._machine.kv.expiry.count,
                "maintenance": lambda: int(self.maintenance is not None),
                "log_segments": lambda: len(self._storage.log.segments),
                "log_size_bytes": lambda: self._storage.log.size_bytes,
                "older_entries_size_bytes": lambda: self._machine.kv.held.size,
                "pending_writes": lambda: self._pipeline.pending,
                "remembered_answers": lambda: len(self._machine.requests),
                "remembered_answers_size_bytes": lambda: self._machine.requests.size,
                "revision": lambda: self._machine.revision,
                "scans_open": lambda: len(self._scans),
                "watches_behind": lambda: self.watches.behind,
                "watches_open": lambda: len(self.watches),
                "events": lambda: len(self._machine.kv.events),
                "events_oldest_revision": lambda: self._machine.kv.oldest,
                "events_size_bytes": lambda: self._machine.kv.events.size,
                "uptime_seconds": lambda: self.uptime_ms / 1000,
            }
        )

    def _on_entry(self) -> None:
        self.snapshots.entry_written()

    def _on_applied(self) -> None:
        if self._machine.kv.expiry.count:
            self.expiry.look()

    def _entry_time_ms(self) -> int:
        """The time for an entry that is handed to the disk now."""
        clock = self._entry_clock
        time_ms = clock.read(self.clock_ms(), self._monotonic_ns())
        large = clock.news()
        if large:
            ahead = clock.offset_ms > 0
            _logger.warning(
                "entry_time_off",
                extra={
                    "offset_seconds": clock.offset_ms / 1000,
                    "made_up_in_seconds": clock.made_up_in_s,
                    "meaning": f"the wall clock was set {'back' if ahead else 'forward'}, or was wrong before; until "
                    f"entry time agrees with it, it runs up to {100 // SLEW} % {'slower' if ahead else 'faster'}, and "
                    "keys and answers expire by entry time",
                },
            )
        elif large is not None:
            _logger.info("entry_time_agrees", extra={"offset_seconds": clock.offset_ms / 1000})
        return time_ms

    def _note_audit_head(self, sequence: int, digest: bytes) -> None:
        """Keep the head of the audit log in the log. On a full disk the next one is kept."""
        self._pipeline.append_own(Logged(node_operations.NoteAuditHead(sequence, digest)), lambda _: None)

    def _publish(self) -> None:
        self.watches.publish()
        revision = self._machine.access.revision
        if revision != self._access_revision:
            self._access_revision = revision
            if self.on_access_changed is not None:
                self.on_access_changed()

    def _on_failure(self, error: BaseException) -> None:
        if self._machine.abandoned is not None:
            self.watches.abandon(self._machine.abandoned)
        if not self.failed.done():
            self.failed_at = self._loop.time()
            self.failed.set_result(error)


def _unix_time_ms() -> int:
    return time.time_ns() // 1_000_000
