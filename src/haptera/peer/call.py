"""Calls that this side makes: the answers they wait for, and the items that come before them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

import msgspec

from haptera.errors import Failure
from haptera.wire import NO_ENTRIES, Entries, Tag

if TYPE_CHECKING:
    from types import TracebackType

    from haptera.peer.item_queue import Items
    from haptera.peer.link import Link
    from haptera.peer.outgoing_calls import Caller

_REVISION: Final = int(Tag.REVISION)
_REPLAYED: Final = int(Tag.REPLAYED)
_SERVER_TIME: Final = int(Tag.SERVER_TIME_US)
_QUEUE_TIME: Final = int(Tag.QUEUE_TIME_US)


class Answer(msgspec.Struct, frozen=True, gc=False):
    """How a call ended: ``payload`` is its result, unless there is a ``failure``."""

    payload: bytes
    failure: Failure | None = None
    entries: Entries = NO_ENTRIES

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


class Call(asyncio.Future[Answer]):
    """A call under way: a future of its answer. Cancelling it cancels the call at the other side."""

    # The caller that makes it sets these: an initializer in Python would cost more than all of them.
    __slots__ = ("caller", "due", "items", "number", "payload", "reads", "repeats", "request_id", "route", "stream")

    caller: Caller
    route: tuple[str, str, bytes]  # service, method, metadata entries
    payload: bytes  # until it is sent
    request_id: bytes | None
    repeats: bool  # whether the caller may send it again, under its id
    stream: int  # 0 while it waits to be sent
    number: int  # by which its deadline is watched meanwhile
    due: float  # when its time is over, for one that waits to be sent
    items: Items | None  # of a call that sends items or takes them
    reads: bool  # whether it takes them

    def add_entries(self, entries: bytes) -> None:
        """Have more metadata entries sent with the request.

        Args:
            entries: Encoded metadata entries.
        """
        service, method, others = self.route
        self.route = service, method, others + entries

    def cancel(self, msg: object | None = None) -> bool:
        """Cancel the call: the other side is asked to stop.

        Args:
            msg: As for ``asyncio.Future.cancel``.

        Returns:
            Whether it was under way.
        """
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
        """Let the tasks that read or send items look again."""
        if self.items is not None:
            self.items.wake()


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

    def __init__(self, link: Link, call: Call, items: Items, sender: asyncio.Task[None] | None) -> None:
        self._link = link
        self._call = call
        self._items = items
        self._sender = sender
        #: The terminal answer, once the items have ended.
        self.answer: Answer | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        self._link.home.check()
        call, items = self._call, self._items
        while not items.arrived:
            if call.cancelled():
                raise StopAsyncIteration  # it was left early
            if call.done():
                self.answer = call.result()
                self.answer.result()
                raise StopAsyncIteration
            await items.wait_arrival()
        payload = self._link.take_item(call.stream, items.arrived.popleft())
        if isinstance(payload, Failure):
            items.arrived.clear()  # items behind a lost one are not handed over in its place
            self.answer = Answer(b"", payload)
            raise payload.exception()
        return payload

    def __repr__(self) -> str:
        service, method, _ = self._call.route
        return f"<haptera.CallStream {service}.{method}{' ended' if self.answer is not None else ''}>"

    async def aclose(self) -> None:
        """Cancel the call if it has not ended."""
        if self._link.closing.left_behind():
            return
        _leave(self._call, self._sender)

    async def __aenter__(self) -> CallStream:
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
        if self._link.home.present:
            call.get_loop().call_soon_threadsafe(_leave, call, sender)


def _leave(call: Call, sender: asyncio.Task[None] | None) -> None:
    if not call.cancel() and not call.cancelled():
        call.exception()  # an end without a waiting task is no loss
    if sender is not None:
        sender.cancel()
