"""Nodes for tests: whole ones, in this process, that leave nothing behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections import deque
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import quote

from haptera.errors import ConfigurationError, StorageError
from haptera.testing.clock import VirtualClockLoop
from haptera.testing.directories import socket_directory
from haptera.testing.filesystem import Crashed, MemoryFileSystem

try:
    from haptera.dialects import DIALECTS
    from haptera.node import OPTIONS, AdminPassword, Node, NodeConfig, NodeServer, make_administrator
except ModuleNotFoundError as _error:
    raise ConfigurationError(f"a node needs the package {_error.name}: pip install 'haptera[server]'") from _error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from haptera.replication import RecordWriter, Writer
    from haptera.storage import File, FileSystem, OpenMode, PreparedRecord

__all__ = ["NodeUrl", "node", "node_in_thread"]

#: Bytes of a log segment. They are preallocated, and a test writes few.
SEGMENT_SIZE: Final = 1024 * 1024

#: Unix time in milliseconds at which virtual clocks begin.
EPOCH_MS: Final = 1_700_000_000_000

#: The data directory within a file system in memory.
MEMORY_DATA_DIR: Final = "/data"


class NodeUrl(str):
    """The URL of a node in this process, and the node itself.

    ``node`` is the ``haptera.node.node.Node`` and ``server`` its listeners; ``filesystem`` is where a node that has its
    storage in memory keeps it (in the directory ``/data``), else None. Use them on the loop that the node runs on.
    """

    __slots__ = ("filesystem", "node", "server")

    node: Node
    server: NodeServer
    filesystem: MemoryFileSystem | None


@asynccontextmanager
async def node(
    *,
    storage: Literal["disk", "memory"] | MemoryFileSystem = "disk",
    data_dir: str | os.PathLike[str] | None = None,
    listen: str | Sequence[str] = "unix",
    write_delay: float = 0.0,
    clock_ms: Callable[[], int] | None = None,
    admin_password: str = "",
    **options: Any,
) -> AsyncIterator[NodeUrl]:
    """A whole node in this process, on this loop: ``async with haptera.testing.node() as url``.

    ``listen`` is ``"unix"`` (a socket in a temporary directory), ``"tcp"`` (a free port of 127.0.0.1), or the URLs to
    listen on; the first is the node's URL. ``storage`` is ``"disk"``, in ``data_dir`` or in a temporary directory, or
    ``"memory"``, or a `MemoryFileSystem` of the test's own, which can fail and lose power. ``options`` are the
    options of ``haptera serve``, with ``segment_size`` 1 MiB if nothing else is said, and without authentication: its
    ``no_auth`` is true. With ``no_auth=False`` users have to prove their identity, and ``admin_password`` is that of
    the administrator, ``admin`` unless ``admin_user`` names another.

    On a virtual clock writes are made on the loop, each taking ``write_delay`` virtual seconds, and the entries' time
    is the clock's. ``clock_ms`` gives another wall clock: Unix time in milliseconds. Where it jumps, entry time follows
    it slowly (spec/storage.md, "Time").

    At the end the node and its connections are closed and the temporary directory is removed. Raises what
    ``haptera serve`` reports: ``ConfigurationError`` and ``StorageError``.
    """
    loop = asyncio.get_running_loop()
    virtual = isinstance(loop, VirtualClockLoop)
    if write_delay and not virtual:
        raise ConfigurationError("write_delay is for a node on a virtual clock")
    temporary, maker = socket_directory(), os.getpid()
    try:
        filesystem = _memory(storage, data_dir)
        path = os.path.join(temporary, "data") if data_dir is None else os.fspath(data_dir)
        if filesystem is not None:
            os.mkdir(path)  # for the socket that a node opens beside its data
        opened = await Node.open(
            _config(path, listen, temporary, options),
            filesystem=None if filesystem is None else _At(filesystem, path),
            clock_ms=clock_ms or ((lambda: EPOCH_MS + int(loop.time() * 1000)) if virtual else None),
            monotonic_ns=(lambda: int(loop.time() * 1e9)) if virtual else None,
            writer=_LoopWriter(loop, write_delay) if virtual else None,
            records=_LoopRecords(loop, write_delay) if virtual else None,
            archive_writer=_LoopWriter(loop, 0.0) if virtual else None,
        )
        server = NodeServer(opened, DIALECTS)
        try:
            await make_administrator(opened, AdminPassword(admin_password, opened.config.admin_password_file))
            await server.start()
            url = NodeUrl(server.urls[0])
            url.node, url.server, url.filesystem = opened, server, filesystem
            yield url
        finally:
            await server.aclose()
            await _close(opened)
    finally:
        if os.getpid() == maker:  # a forked child that ends here leaves its parent's node alone
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def node_in_thread(**options: Any) -> Iterator[str]:
    """A node as `node` makes it, on a loop in a thread of its own: for tests that are not coroutines. Gives its URL."""
    urls: list[str] = []
    errors: list[BaseException] = []
    ready = threading.Event()
    stop: list[Callable[[], Any]] = []

    async def serve() -> None:
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(stopped.set))
        async with node(**options) as url:
            urls.append(str(url))
            ready.set()
            await stopped.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:  # the test has to hear of any error
            errors.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="haptera-testing-node")
    thread.start()
    try:
        ready.wait()
        if not errors:
            yield urls[0]
    finally:
        if stop:
            with suppress(RuntimeError):  # a node that could not open has closed its loop by now, perhaps
                stop[0]()
        thread.join()
    if errors:
        raise errors[0]


def _config(path: str, listen: str | Sequence[str], temporary: str, options: dict[str, Any]) -> NodeConfig:
    match listen:
        case "unix":
            urls: Any = (f"haptera+unix://{quote(os.path.join(temporary, 'node.sock'))}",)
        case "tcp":
            urls = ("haptera://127.0.0.1:0",)
        case _:
            urls = listen
    usual = {"segment_size": SEGMENT_SIZE, "no_auth": True}
    values: dict[str, Any] = {**usual, **options, "data_dir": path, "listen": urls}
    for name, value in values.items():
        if name not in OPTIONS:
            raise TypeError(f"node() has no option {name!r}; the options of a node are {', '.join(sorted(OPTIONS))}")
        try:
            values[name] = OPTIONS[name](value)
        except ValueError as error:
            raise ConfigurationError(f"{name}: {error}") from error
    return NodeConfig(**values)


def _memory(storage: str | MemoryFileSystem, data_dir: object) -> MemoryFileSystem | None:
    if storage == "disk":
        return None
    if data_dir is not None:
        raise ConfigurationError("data_dir is for storage on the disk")
    if storage == "memory":
        return MemoryFileSystem()
    if isinstance(storage, MemoryFileSystem):
        return storage
    raise ConfigurationError(f"storage is 'disk', 'memory' or a MemoryFileSystem, not {storage!r}")


async def _close(opened: Node) -> None:
    try:
        await opened.aclose()
    except (StorageError, Crashed):
        # A disk that failed the node by the test's own doing can't be asked to seal the log.
        if not opened.failed.done():
            raise


class _At:
    """A file system in memory whose directory ``/data`` is found under another path, that of one on the disk."""

    def __init__(self, filesystem: MemoryFileSystem, path: str) -> None:
        self._fs = filesystem
        self._path = os.path.normpath(path)
        self._below = self._path + "/"

    def open(self, path: str, mode: OpenMode) -> File:
        return self._fs.open(self._map(path), mode)

    def listdir(self, path: str) -> list[str]:
        return self._fs.listdir(self._map(path))

    def mkdir(self, path: str) -> None:
        self._fs.mkdir(self._map(path))

    def rename(self, source: str, target: str) -> None:
        self._fs.rename(self._map(source), self._map(target))

    def unlink(self, path: str) -> None:
        self._fs.unlink(self._map(path))

    def rmdir(self, path: str) -> None:
        self._fs.rmdir(self._map(path))

    def sync_directory(self, path: str) -> None:
        self._fs.sync_directory(self._map(path))

    def boot_id(self) -> str:
        return self._fs.boot_id()

    def close(self) -> None:
        self._fs.close()

    def _map(self, path: str) -> str:
        if path.startswith(self._below):
            return MEMORY_DATA_DIR + path[len(self._path) :]
        return os.path.normpath(os.path.join(MEMORY_DATA_DIR, os.path.relpath(path, self._path)))


class _LoopWriter:
    """Writes to the log on the loop's own thread, one job after the other, each taking ``delay`` seconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop, delay: float) -> None:
        self._loop = loop
        self._delay = delay
        self._jobs: deque[Callable[[], None]] = deque()  # the pipeline keeps one batch with the disk

    def submit(self, job: Callable[[], None]) -> None:
        self._jobs.append(job)
        self._loop.call_later(self._delay, self._run)

    def close(self) -> None:
        while self._jobs:
            self._run()

    def _run(self) -> None:
        if self._jobs:
            self._jobs.popleft()()


class _LoopRecords:
    """Writes records on the loop's own thread, each taking ``delay`` seconds: the kernel's part on a virtual clock."""

    def __init__(self, loop: asyncio.AbstractEventLoop, delay: float) -> None:
        self._loop = loop
        self._delay = delay
        self._begun: tuple[PreparedRecord, Callable[[BaseException | None], None]] | None = None

    def start(self, record: PreparedRecord, ended: Callable[[BaseException | None], None]) -> None:
        assert self._begun is None, "one record at a time"
        self._begun = record, ended
        self._loop.call_later(self._delay, self.finish)

    def finish(self) -> None:
        if self._begun is None:
            return
        (record, ended), self._begun = self._begun, None
        ended(record.attempt())  # its error may be a test's end of the program

    def close(self) -> None:
        pass


if TYPE_CHECKING:
    _filesystem: type[FileSystem] = _At
    _records: type[RecordWriter] = _LoopRecords
    _writer: type[Writer] = _LoopWriter
