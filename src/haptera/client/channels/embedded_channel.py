"""Calls to a node in this process: the served store's commands and commit pipeline, without socket and bytes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from haptera import forks
from haptera.client.calls.access_methods import ANYONE_HERE, SessionMethods
from haptera.client.calls.argument_checks import unsendable
from haptera.client.calls.methods import BackedUp, Method, Row, Scanned, ServerMethods
from haptera.client.channels.calls_under_way import UnderWay
from haptera.client.channels.local_waits import LongAnswer, check_home, close_failed, end_error, end_of, in_time
from haptera.client.watches.watched import decode_item
from haptera.errors import Code, ConfigurationError, Failure, HapteraError, ShuttingDown, failure
from haptera.transport import running_loop, wrong_loop

if TYPE_CHECKING:
    from haptera.client.channels.channel import StreamEnd
    from haptera.client.watches.watched import Happened, WatchPosition
    from haptera.state import Operation, Steps

try:
    from haptera.node import (
        ADMIN_METHODS,
        ANONYMOUS,
        DROPPED,
        ELEMENTS_MAX,
        METHODS,
        OPTIONS,
        Envelope,
        LocalFeed,
        Node,
        NodeConfig,
        administer_embedded,
        backup_answer,
        convert_steps,
        is_administration,
        page_steps,
        status,
        too_many_bytes,
    )
    from haptera.state import COMMAND_SIZE_MAX, Replayed, Result, free_steps, operations
except ModuleNotFoundError as _error:
    raise ConfigurationError(
        f"an embedded database needs the package {_error.name}: pip install 'haptera[server]'"
    ) from _error

R = TypeVar("R")
PAGE_SIZE_MAX = 64 * 1024
#: The largest page of a scan: some tenths of a millisecond, and other calls wait for no more than a turn of it.
PAGE_ROWS_MAX = 512


class EmbeddedChannel:
    """Carries calls to the node of the data directory ``path``, opened by `start` or by the first call."""

    private = True
    sends_at_once = False  # a call may have to open the store first, and waits within a timeout of its task

    def __init__(
        self,
        path: str | os.PathLike[str],
        durability: Literal["sync", "os"],
        memory_max: int,
        master_key_file: str | os.PathLike[str] | None = None,
        master_key_command: str | None = None,
    ) -> None:
        if durability not in {"sync", "os"}:
            raise ConfigurationError(f"durability is sync or os, not {durability!r}")
        directory = os.fsdecode(path)
        if not directory or "\0" in directory:
            raise ConfigurationError(f"path is that of the data directory, not {directory!r}")
        self.revision: int = 0
        self.server_id: bytes | None = None
        self.reached: str | None = None
        try:
            memory_max = OPTIONS["memory_max"](memory_max)
        except ValueError as error:
            raise ConfigurationError(f"memory_max: {error}") from None
        self._config = NodeConfig(
            data_dir=directory,
            listen=(),
            durability=durability,
            memory_max=memory_max,
            master_key_file=None if master_key_file is None else os.fsdecode(master_key_file),
            master_key_command=master_key_command,
        )
        self._node: Node | None = None
        self._opening: asyncio.Task[Node] | None = None
        self._closed = False
        self._ending: asyncio.Task[None] | None = None
        self._under_way = UnderWay()
        self.converting: UnderWay = UnderWay()
        self._home: asyncio.AbstractEventLoop | None = None  # the loop of the node, from the first call on
        self._left: Node | None = None  # the node of a loop that was closed before it
        forks.watch(self)

    @property
    def connected_once(self) -> bool:
        """Whether the store was ever opened."""
        return self.reached is not None

    def disown(self, owner: int) -> None:
        """Begin afresh in a forked child (``haptera.forks`` calls this).

        The node, its lock and its thread stay with the parent, and the next call is refused as long as it has them.
        """
        self._node = self._opening = self._ending = self._home = self._left = None
        self._under_way, self.converting = UnderWay(), UnderWay()

    @property
    def closed(self) -> bool:
        """Whether no more calls are taken: the database is closed, or its node has failed."""
        return self._closed or self._ending is not None

    @property
    def unclosed(self) -> bool:
        """Whether a node is open, or about to be. One that has failed is closed by itself."""
        return (self._opening is not None and self._ending is None) or self._left is not None

    def _settle(self) -> None:
        """Make sure that the node belongs to the loop that runs here.

        A database whose loop is closed begins afresh under the next one: a program may call ``asyncio.run`` more than
        once. The node of the closed loop is closed before the directory is opened again. Raises ``WrongLoop`` where the
        loop could still run.
        """
        loop = asyncio.get_running_loop()
        home, opening = self._home, self._opening
        if home is loop:
            return
        if home is not None and not home.is_closed():
            name = f"the database in {self._config.data_dir}"
            raise wrong_loop(name, home, advice="use it there, or close it there first")
        self._node = self._opening = self._ending = None
        self._under_way, self.converting = UnderWay(), UnderWay()
        if opening is not None and opening.done() and not opening.cancelled() and opening.exception() is None:
            self._left = opening.result()
        self._home = loop

    async def start(self) -> None:
        """Open the directory and replay its log. Raises ``StorageError``."""
        self._settle()
        await self._opened()

    async def call(
        self, method: Method[R], argument: tuple[Any, ...], timeout: float | None, server_id: bytes | None = None
    ) -> R | Failure:
        """Submit one command and give its result, or the failure that the store answers with."""
        if running_loop() is not self._home:
            self._settle()
        with self._under_way:
            try:
                return await self._perform(method, argument, timeout)
            except ShuttingDown:
                raise self._end_of_node() from None

    async def _perform(self, method: Method[R], argument: tuple[Any, ...], timeout: float | None) -> R | Failure:
        node = self._node or await self._opened()
        if method is ServerMethods.status or method is SessionMethods.whoami:
            return cast("R", status(node) if method is ServerMethods.status else ANYONE_HERE)
        if is_administration(method):
            ended = await in_time(administer_embedded(node, method, argument), timeout, outcome="unknown")
            return ended if isinstance(ended, Failure) else method.convert(ended)
        known = (METHODS if method.service == "kv" else ADMIN_METHODS)[method.name]
        if long := (known.list_field is not None and len(argument[0]) > ELEMENTS_MAX):
            command = await _long_command(node, known, argument, timeout)
        else:
            op = known.convert(argument)
            command = op if isinstance(op, Failure) else Envelope(op)
        if isinstance(command, Failure):
            return unsendable(argument, command)  # a text that is none fails before the store sees whose it is
        op = command.op
        if type(op) in _MAYBE_LONG and (reading := _long_read(node, op, long)) is not None:
            try:
                return await self._answered(method, reading, timeout)
            finally:
                if long:
                    _free(node, op)
        answers: list[list[Result]] = []
        waiting: asyncio.Future[Result] | None = None

        def done(results: list[Result]) -> None:
            if command.size is not None:
                _free(node, op)
            if waiting is None:
                answers.append(results)
            elif not waiting.done():
                waiting.set_result(results[0])

        submission = node.commands.submit(ANONYMOUS, [command], done)
        if answers:
            result = answers[0][0]
        else:
            waiting = asyncio.get_running_loop().create_future()
            result = await self._durable(waiting, timeout, lambda: node.commands.drop(submission, 0))
        if isinstance(result, Replayed):
            result = result.result
        if isinstance(result, Failure):
            return result
        if isinstance(op, operations.GetMany) and (refused := too_many_bytes(result[0])) is not None:
            return refused
        self.revision = node.revision
        return method.convert(result)

    async def _answered(self, method: Method[R], work: Awaitable[LongAnswer], timeout: float | None) -> R | Failure:
        """Do a long read, while others have their turns."""
        found = await in_time(work, timeout)
        if isinstance(found, Failure):
            return found
        answer, self.revision = found
        return method.convert(answer)

    async def _durable(
        self, waiting: asyncio.Future[Result], timeout: float | None, drop: Callable[[], bool]
    ) -> Result:
        """Wait for the disk.

        After ``timeout`` seconds, or when the task is cancelled, the change is dropped; if it is with the disk already,
        it goes on and its outcome is unknown.
        """

        def expire() -> None:
            if not waiting.done() and not drop():
                waiting.set_exception(failure(Code.DEADLINE_EXCEEDED, outcome="unknown").exception())

        timer = None if timeout is None else waiting.get_loop().call_later(timeout, expire)
        try:
            result = await waiting
        except asyncio.CancelledError:
            drop()
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if result is DROPPED:
            raise failure(Code.DEADLINE_EXCEEDED, outcome="not_applied").exception()
        return result

    async def scan(
        self, options: dict[str, Any], end: StreamEnd[Scanned], page_timeout: float | None, timeout: float | None
    ) -> AsyncGenerator[list[Row], None]:
        """The pages of a scan. A page is no wait, so ``timeout`` is for the whole alone."""
        self._settle()
        home, under_way = self._home, self._under_way
        node = self._node or await self._opened()
        op = _converted("scan", options)
        assert isinstance(op, operations.OpenScan | operations.AsOf)
        cursor = await node.commands.open_scan(ANONYMOUS, op)
        if isinstance(cursor, Failure):
            raise cursor.exception()
        passed = end_of(timeout)
        with under_way:
            try:
                while True:
                    page = await node.commands.turns.run(None, page_steps(cursor, PAGE_SIZE_MAX, PAGE_ROWS_MAX))
                    if isinstance(page, Failure):
                        raise page.exception()
                    if page.rows:
                        yield [Row(*row) for row in page.rows]
                        check_home(home, "the scan")
                    if page.done:
                        break
                    if passed():
                        raise failure(Code.DEADLINE_EXCEEDED, outcome="not_applied").exception()
                end.result = Scanned(*cursor.result)
                self.revision = end.result.revision
            except ShuttingDown:
                raise self._end_of_node() from None
            finally:
                cursor.close()

    async def backup(
        self, end: StreamEnd[BackedUp], piece_timeout: float | None, timeout: float | None
    ) -> AsyncGenerator[bytes, None]:
        """The pieces of a backup. ``timeout`` is for the whole alone, as with a scan."""
        self._settle()
        home, under_way = self._home, self._under_way
        node = self._node or await self._opened()
        passed = end_of(timeout)
        with under_way:
            async with node.backups.begin() as backup:
                async for piece in backup.pieces():
                    if passed():
                        raise failure(Code.DEADLINE_EXCEEDED, outcome="not_applied").exception()
                    yield piece
                    check_home(home, "the backup")
                end.result = ServerMethods.backup.convert(backup_answer(backup))
            self.revision = node.revision

    async def watch(self, position: WatchPosition, timeout: float | None) -> AsyncGenerator[list[Happened], None]:
        """The events of a watch. It begins at once, so ``timeout`` does not count."""
        self._settle()
        home = self._home
        node = self._node or await self._opened()
        op = _converted("watch", position.options())
        assert isinstance(op, operations.OpenWatch)
        feed = LocalFeed()
        watch = node.watches.open(ANONYMOUS, op, feed)
        if isinstance(watch, Failure):
            raise watch.exception()
        try:
            while True:
                yield position.take(decode_item(await feed.next()), node.node_id)
                check_home(home, "the watch")
        except ShuttingDown:
            raise self._end_of_node() from None
        finally:
            node.watches.close(watch, failure(Code.CANCELLED, outcome="not_applied"))

    async def drain(self, timeout: float) -> None:
        """Wait up to ``timeout`` seconds for the calls and scans under way, and close."""
        if self._home is not None:
            self._settle()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self.converting.wait()
                self._closed = True
                self._node = None  # a call that is made from now on finds it closed
                await self._under_way.wait()
        await self.aclose()

    async def aclose(self) -> None:
        """Close the node: submitted changes are made durable first."""
        if self._home is not None:
            self._settle()
        self._closed = True
        await self._close_left()
        opening, self._opening, self._node = self._opening, None, None
        if opening is None:
            return
        if not opening.done():
            opening.cancel()
            await asyncio.wait([opening])
        if not opening.cancelled() and opening.exception() is None:
            await opening.result().aclose()

    async def _opened(self) -> Node:
        if self._closed:
            raise end_error()
        if self._ending is not None:
            await asyncio.wait([self._ending])  # so that a caller may open the directory at once after the error
            raise self._end_of_node()
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
            self._opening.add_done_callback(self._note_opened)
        opening = self._opening
        await asyncio.wait([opening])
        if opening.cancelled():
            raise end_error()
        return opening.result()

    def _end_of_node(self) -> HapteraError:
        """Why the node takes no more calls and ends those under way: the database is closed, or it has failed."""
        return end_error(failed=not self._closed and self._ending is not None)

    async def _open(self) -> Node:
        await self._close_left()
        return await Node.open(self._config)

    async def _close_left(self) -> None:
        """Close the node of a loop that was closed before it."""
        left, self._left = self._left, None
        if left is not None:
            await asyncio.to_thread(left.abandon)

    def _note_opened(self, opening: asyncio.Task[Node]) -> None:
        if opening.cancelled() or opening.exception() is not None:
            if self._opening is opening:
                self._opening = None  # the next call tries again
        elif not self._closed:
            self._node = opening.result()
            self.reached, self.server_id = self._node.data_dir, self._node.server_id
            self._node.failed.add_done_callback(self._note_failed)

    def _note_failed(self, _: object) -> None:
        """End the node, as `haptera serve` does: the directory is free, and opening it again replays its log."""
        node, self._node = self._node, None
        if node is not None:
            self._ending = asyncio.get_running_loop().create_task(close_failed(node.aclose()))


def _converted(method: str, options: dict[str, Any]) -> Operation:
    op = METHODS[method].convert((options,))
    if isinstance(op, Failure):
        raise op.exception()
    return op


async def _long_command(
    node: Node, method: Any, argument: tuple[Any, ...], timeout: float | None
) -> Envelope | Failure:
    """The command that a long list is the argument of, made while others have their turns. `_free` it in the end."""
    turns = node.commands.turns
    elements: list[Any] = []
    command: Envelope | Failure | None = None
    try:
        command = await in_time(turns.run(None, _checked(node, method, argument, elements)), timeout)
        return command
    finally:
        if not isinstance(command, Envelope):
            turns.start(None, free_steps(elements))


#: The operations that `_long_read` looks at.
_MAYBE_LONG = frozenset({operations.Count, operations.GetMany, operations.OpenHistory, operations.AsOf})


def _long_read(node: Node, op: Operation, long: bool) -> Awaitable[LongAnswer] | None:
    """A read that is made while others have their turns; None for one that is answered at once."""
    commands, read = node.commands, operations.read_of(op)
    if isinstance(op, operations.Count | operations.AsOf) and isinstance(read, operations.Count):
        return None if op is read and commands.counts_at_once(ANONYMOUS, read) else commands.count(ANONYMOUS, op)
    if isinstance(op, operations.OpenHistory | operations.AsOf) or (isinstance(op, operations.GetMany) and long):
        return commands.turns.run(None, commands.read_steps(ANONYMOUS, op, COMMAND_SIZE_MAX))
    return None


def _free(node: Node, op: Operation) -> None:
    """Let go of the long list that an operation has."""
    op = operations.read_of(op)
    assert isinstance(op, (operations.SetMany, operations.DeleteMany, operations.GetMany))
    node.commands.turns.start(None, free_steps(op.items if isinstance(op, operations.SetMany) else op.keys))


def _checked(node: Node, method: Any, argument: tuple[Any, ...], elements: list[Any]) -> Steps[Envelope | Failure]:
    """The command that a long list is the argument of, converted and checked in slices."""
    op = yield from convert_steps(method, argument, elements)
    if isinstance(op, (operations.SetMany, operations.DeleteMany)):
        return (yield from node.commands.check_steps(ANONYMOUS, op))
    return op if isinstance(op, Failure) else Envelope(op)
