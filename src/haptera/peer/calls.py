"""Calls that this side makes: the answers they wait for, and the items that come before those."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from enum import Enum
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from haptera.errors import Failure
from haptera.wire.metadata import NO_ENTRIES, Tag

if TYPE_CHECKING:
    from haptera.connection.events import PackedItem
    from haptera.peer.line import Line

_REVISION: Final = int(Tag.REVISION)
_REPLAYED: Final = int(Tag.REPLAYED)
_SERVER_TIME: Final = int(Tag.SERVER_TIME_US)
_QUEUE_TIME: Final = int(Tag.QUEUE_TIME_US)


class Default(Enum):
    """Stands for a timeout that is not given."""

    DEFAULT = "default"


DEFAULT: Final = Default.DEFAULT


def check_timeout(timeout: object) -> None:
    """Raise ``TypeError`` for what is no number, ``ValueError`` for one that is not above 0, as NaN is not."""
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"timeout is a number of seconds or None, not {type(timeout).__name__}")
    if not timeout > 0:
        raise ValueError(f"timeout is a number of seconds above 0, not {timeout}")


class Answer(msgspec.Struct, frozen=True, gc=False):
    """How a call ended: ``payload`` is its result, unless ``failure`` says what went wrong."""

    payload: bytes
    failure: Failure | None = None
    entries: dict[int, bytes] = NO_ENTRIES

    @property
    def revision(self) -> int | None:
        """The store's applied revision that the answer saw, if it says."""
        value = self.entries.get(_REVISION)
        return None if value is None else int.from_bytes(value, "big")

    @property
    def replayed(self) -> bool:
        """Whether this is the remembered answer to an earlier request of the same id."""
        return _REPLAYED in self.entries

    @property
    def server_time_us(self) -> int | None:
        """How long the handler took, in microseconds, if the other side says (`server_metrics`)."""
        value = self.entries.get(_SERVER_TIME)
        return None if value is None else int.from_bytes(value, "big")

    @property
    def queue_time_us(self) -> int | None:
        """How long the request waited for its handler or for the disk, in microseconds, if the other side says."""
        value = self.entries.get(_QUEUE_TIME)
        return None if value is None else int.from_bytes(value, "big")

    def result(self) -> bytes:
        """Return the payload. Raises the ``ServerError`` of the failure's code."""
        if self.failure is not None:
            raise self.failure.exception()
        return self.payload


class CallOwner(Protocol):
    """Who sends a call and waits for its answer."""

    def abandon(self, call: "Call") -> None:
        """Nobody waits for the answer any longer."""

    def release(self, call: "Call") -> None:
        """A change will not be sent again."""


class Call(asyncio.Future[Answer]):
    """A call under way: a future of its answer. Cancelling it cancels the call at the other side."""

    __slots__ = (
        "caller",
        "due",
        "items",
        "number",
        "payload",
        "repeats",
        "request_id",
        "room",
        "route",
        "stream",
        "streaming",
        "waiter",
    )
    due: float  # when its time is over, for one that waits to be sent

    def __init__(
        self,
        caller: CallOwner,
        route: tuple[str, str, bytes],
        payload: bytes,
        loop: asyncio.AbstractEventLoop,
        *,
        streaming: bool = False,
        request_id: bytes | None = None,
        repeats: bool = False,
    ) -> None:
        super().__init__(loop=loop)
        self.caller = caller
        self.route = route  # service, method, metadata entries
        self.payload = payload if type(payload) is bytes else as_bytes(payload)
        self.streaming = streaming
        self.request_id = request_id
        self.repeats = repeats  # whether the caller may send it again, under its id
        self.stream = 0  # 0 while it waits to be sent
        self.number = 0  # by which its deadline is watched meanwhile
        self.items: deque[bytes | PackedItem] | None = None
        self.waiter: asyncio.Future[None] | None = None  # of who reads items
        self.room: asyncio.Future[None] | None = None  # of who sends items

    def add_entries(self, entries: bytes) -> None:
        """Have more metadata entries sent with the request."""
        service, method, others = self.route
        self.route = service, method, others + entries

    def cancel(self, msg: object | None = None) -> bool:
        """Cancel the call: the other side is asked to stop."""
        if self.done():
            return False
        self.caller.abandon(self)
        super().cancel(msg)
        self.wake()
        return True

    def release(self) -> None:
        """Say that the request will not be sent again: the other side may forget its answer.

        A caller that ``repeats`` says this of each request whose answer was damaged, at the end of the whole call.
        """
        self.caller.release(self)

    def wake(self) -> None:
        """Let whoever reads or sends items look again."""
        self.wake_reader()
        self.make_room()

    def wake_reader(self) -> None:
        """Let whoever reads items look again."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def make_room(self) -> None:
        """Let whoever sends items go on."""
        if self.room is not None and not self.room.done():
            self.room.set_result(None)

    async def wait_room(self) -> None:
        """Wait until more items may be sent, or the call has ended."""
        self.room = self.get_loop().create_future()
        await self.room
        self.room = None


def as_bytes(value: object) -> bytes:
    """Return ``value`` as bytes that cannot change while they wait to be sent. Raises ``TypeError`` for other types."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise TypeError(f"a payload is bytes, not {type(value).__name__}")


class CallStream:
    """The items of a call's answer, as they come; ``answer`` is there after the last.

    Iterate over it with ``async for``, in one task. Leaving early cancels the call: at once with ``async with`` or
    ``aclose``, otherwise when the object is forgotten.
    """

    def __init__(self, line: "Line", call: Call, sender: asyncio.Task[None] | None) -> None:
        call.items = deque()
        self._line = line
        self._call = call
        self._sender = sender
        #: The terminal answer, once the items have ended.
        self.answer: Answer | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        self._line.check_loop()
        call = self._call
        while not call.items:
            if call.cancelled():
                raise StopAsyncIteration  # it was left early
            if call.done():
                self.answer = call.result()
                self.answer.result()
                raise StopAsyncIteration
            call.waiter = call.get_loop().create_future()
            await call.waiter
        payload = self._line._take_item(call.stream, call.items.popleft())
        if isinstance(payload, Failure):
            call.items.clear()  # what follows one that is lost is not handed over in its place
            self.answer = Answer(b"", payload)
            raise payload.exception()
        return payload

    async def aclose(self) -> None:
        """Cancel the call if it has not ended."""
        if self._line.left_behind():
            return
        _leave(self._call, self._sender)

    async def __aenter__(self) -> "CallStream":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        call, sender = self._call, self._sender
        if call.done() and (sender is None or sender.done()):
            _leave(call, sender)
            return
        # The collector may run in any thread, and in a forked child.
        if self._line.has_loop:
            call.get_loop().call_soon_threadsafe(_leave, call, sender)


def _leave(call: Call, sender: asyncio.Task[None] | None) -> None:
    if not call.cancel() and not call.cancelled():
        call.exception()  # an end that nobody waits for is no loss
    if sender is not None:
        sender.cancel()
