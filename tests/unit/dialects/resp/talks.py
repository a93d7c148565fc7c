"""A session of RESP over a node, with a connection that the test plays: it says when there is room for replies."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import TYPE_CHECKING, Any

from haptera.dialects.resp.resp_session import RespSession
from haptera.dialects.resp.resp_state import RespState
from haptera.node.commands import ANONYMOUS, STRANGER, Submitter, operations
from haptera.state import Permits
from tests.unit.node.nodes import opened, turn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from haptera.errors import Failure
    from haptera.node.commands import Envelope, Submission
    from haptera.node.node import Node


def command(*arguments: bytes | str | int) -> bytes:
    """A command as clients send it: an array of bulk strings."""
    parts = [each if isinstance(each, bytes) else str(each).encode() for each in arguments]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


#: Unix milliseconds at which the clock of `at_a_time` begins.
NOW_MS = 1_900_000_000_123


class Clock:
    """The clocks of a node, which go on when the test says so."""

    def __init__(self) -> None:
        self.now_ms = NOW_MS

    def ms(self) -> int:
        return self.now_ms

    def ns(self) -> int:
        return self.now_ms * 1_000_000


def at_a_time(clock: Clock | None = None, **options: Any) -> AbstractAsyncContextManager[Node]:
    """A node whose clocks stand still, so that times to live can be compared."""
    clock = clock or Clock()
    return opened(clock_ms=clock.ms, monotonic_ns=clock.ns, **options)


_NUMBERS = count(1)


class Limited(Submitter):
    """A user with grants."""

    def __init__(self, *grants: tuple[str, Sequence[str]]) -> None:
        super().__init__("limited")
        self.given: Permits | None = Permits(grants)  # type: ignore[arg-type]

    def permits(self) -> Permits | None:
        return self.given


class PlayedFacts:
    def __init__(self, node: Node) -> None:
        self._node = node

    def read_time_ms(self) -> int:
        return self._node.commands._now_ms()

    def clock_ms(self) -> int:
        return self._node.clock_ms()


class PlayedCaller:
    """The caller of a test: `submitter` says what it may do. It keeps the submissions that were made for it."""

    def __init__(self, node: Node, submitter: Submitter) -> None:
        self.commands = node.commands
        self.facts = PlayedFacts(node)
        self.submitter = submitter
        self.number = next(_NUMBERS)
        self.attributes: dict[str, Any] = {}
        self.on_leave: list[Callable[[], None]] = []
        self.watches = node.watches
        self.batches: list[list[operations.Operation]] = []

    @property
    def needs_login(self) -> bool:
        return self.submitter is STRANGER

    def submit(self, commands: Sequence[Envelope], done: Callable[[list[Any]], None]) -> Submission:
        self.batches.append([each.op for each in commands])
        return self.commands.submit(self.submitter, commands, done)

    def read_one(self, op: operations.Read) -> Any:
        self.batches.append([op])
        return self.commands.read_one(self.submitter, op)

    def get_each(self, keys: Sequence[str]) -> list[Any]:
        self.batches.append([operations.Get(key) for key in keys])
        return self.commands.get_each(self.submitter, keys)

    def on_close(self, callback: Callable[[], None]) -> None:
        self.on_leave.append(callback)

    def become(self, submitter: Submitter) -> None:
        """Log in as another user."""
        callbacks, self.on_leave = self.on_leave, []
        for callback in callbacks:
            callback()
        self.submitter = submitter

    def watch(self, op: operations.OpenWatch, feed: Any) -> Any:
        return self.watches.open(self.submitter, op, feed, self)

    def close_watch(self, watch: Any, reason: Failure) -> None:
        self.watches.close(watch, reason)

    async def check(self, op: operations.SetMany | operations.DeleteMany) -> Any:
        return await self.commands.turns.run(self, self.commands.check_steps(self.submitter, op))

    async def open_scan(self, op: operations.OpenScan) -> Any:
        return await self.commands.open_scan(self.submitter, op, None, self)

    async def page(self, cursor: Any, max_bytes: int, max_rows: int) -> Any:
        return cursor.page(max_bytes, max_rows)

    async def count(self, op: operations.Count) -> Any:
        counted = await self.commands.count(self.submitter, op, self)
        return counted[0][0] if isinstance(counted, tuple) else counted

    async def read(self, op: operations.GetMany, limit: int) -> Any:
        found = await self.commands.turns.run(self, self.commands.read_steps(self.submitter, op, limit))
        return found[0] if isinstance(found, tuple) else found


class PlayedConnection:
    """The connection of a test: what was written, and whether it is full."""

    def __init__(self, node: Node, submitter: Submitter) -> None:
        self.caller = PlayedCaller(node, submitter)
        self.loop = asyncio.get_running_loop()
        self.full = False
        #: Bytes that may be written before it is full; None for any number.
        self.room: int | None = None
        self.written = bytearray()
        self.charged = 0
        self.affordable = True
        self.reading = True
        self.expected: int | None = None
        self.is_established = False
        self.ending = False
        self.ended: Failure | None = None

    @property
    def closed(self) -> bool:
        return self.ending

    def guarded(self, call: Callable[..., Any], *arguments: Any) -> None:
        call(*arguments)

    def call_soon(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.loop.call_soon(call, *arguments)

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.written += data
        if self.room is not None and len(self.written) >= self.room:
            self.full = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def charge(self, size: int) -> bool:
        self.charged = size
        return self.affordable

    def expect(self, size: int | None) -> None:
        if size is None or self.expected is None:
            self.expected = size

    def established(self) -> None:
        self.is_established = True

    def close(self) -> None:
        self.ending = True

    def abort(self) -> None:
        self.ending = True

    def end(self, reason: Failure, *, linger: bool) -> None:
        self.ending, self.ended = True, reason


class Talk:
    """A connection of a test with its session."""

    def __init__(self, node: Node, submitter: Submitter = ANONYMOUS, state: RespState | None = None) -> None:
        self.connection = PlayedConnection(node, submitter)
        self.session = RespSession(self.connection, state or RespState())  # type: ignore[arg-type]

    def take(self) -> bytes:
        """All that was written since the last call."""
        written = bytes(self.connection.written)
        self.connection.written.clear()
        return written

    def send(self, data: bytes) -> None:
        self.session.receive(data)

    async def say(self, data: bytes) -> bytes:
        """Send bytes, and take what comes of them."""
        self.send(data)
        await turn()
        return self.take()

    async def do(self, *arguments: bytes | str | int) -> bytes:
        """Send a command, and take its reply."""
        return await self.say(command(*arguments))

    async def waited(self) -> bytes:
        """Take what has come until something has: for commands that take some turns of the loop."""
        for _ in range(1000):
            await asyncio.sleep(0)
            if self.connection.written:
                return self.take()
        raise AssertionError("no reply")

    def is_closed(self) -> bool:
        return self.connection.closed

    def is_reading(self) -> bool:
        return self.connection.reading

    def is_established(self) -> bool:
        return self.connection.is_established

    def expected(self) -> int | None:
        return self.connection.expected

    def make_room(self, size: int | None) -> bytes:
        """Take what was written, as the other side does, and let the session go on."""
        written = self.take()
        self.connection.room, self.connection.full = size, False
        self.session.resume()
        return written
