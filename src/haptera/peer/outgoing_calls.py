"""The calls that this side makes on one connection: from the request to its answer."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterable, Container, Sequence
from typing import TYPE_CHECKING, Final

from haptera.connection import PackedItem, ResponseReceived, Role
from haptera.errors import Code, LocalProtocolError, Outcome, failure
from haptera.peer.call import Answer, Call, as_bytes
from haptera.peer.deadlines import Deadlines
from haptera.peer.limits import WAITING_CALLS_MAX, WAITING_SIZE_MAX
from haptera.peer.request_scope import current
from haptera.timeouts import check_timeout
from haptera.transport import running_loop
from haptera.wire import Tag

if TYPE_CHECKING:
    from haptera.connection import Event
    from haptera.peer.item_queue import Items
    from haptera.peer.link import Link
    from haptera.peer.telemetry import Telemetry

#: After so many calls, each made when the one before it had its answer, the next is expected to be such a call as well:
#: it is written at once, because no other will join it. A burst that comes in its place leaves in two writes.
_ONE_BY_ONE_MIN: Final = 16
_NUMBERS: Final = frozenset({float, int})
_TIMEOUT_HEAD: Final = bytes((Tag.TIMEOUT_MS, 4))
#: The longest time that travels, some 49 days. A longer one is watched here alone.
_TIMEOUT_MS_MAX: Final = 2**32 - 1


def encode_timeout(timeout: float) -> bytes:
    """Encode the seconds left for a call as a metadata entry; empty for more than an entry can say.

    It is rounded up, so that the other side does not give up before this one.
    """
    if not timeout <= _TIMEOUT_MS_MAX / 1000:
        return b""
    return _TIMEOUT_HEAD + max(1, math.ceil(timeout * 1000)).to_bytes(4, "big")


class Caller:
    """Sends requests as far as the other side's limits allow, keeps the rest in order, and matches the answers."""

    def __init__(self, link: Link, telemetry: Telemetry | None) -> None:
        #: The calls under way by their streams.
        self.calls: dict[int, Call] = {}
        #: Whether deadlines and traces travel: in the dialer's first flight if it asks for them, behind the handshake
        #: if they were accepted (spec/protocol.md, section 4).
        self.sends_deadlines: bool = False
        self.sends_traces: bool = False
        #: The last of our streams that the other side answers, once it goes away.
        self.last_taken: int | None = None
        #: Records spans, if the program has them recorded.
        self.telemetry = telemetry
        #: Whether calls wait to be sent.
        self.waits: bool = False
        self._link = link
        self._home = link.home
        self._connection = link.connection
        self._loop = link.loop
        # Most connections never have a call that waits, and an empty deque is not small.
        self._waiting: deque[Call] | None = None
        self._waiting_large: deque[Call] | None = None
        self._waiting_size = 0
        self._waiting_done = 0  # waiting calls that were given up
        self._unsent: dict[int, Call] = {}  # waiting calls with a deadline, by numbers below 0
        self._unsent_last = 0
        self._deadlines = Deadlines(link.loop, self.calls, self._expire)
        self._unsent_deadlines = Deadlines(link.loop, self._unsent, self._expire_unsent)
        self._usual_timeout = -1.0  # the last one that was encoded: most calls of a program share one
        self._usual_entry = b""
        self._one_by_one = 0  # how many of the last calls were sent while no other was under way
        if self._connection.role is Role.DIALER:
            self.use(self._connection.config.capabilities)

    def use(self, capabilities: Container[str]) -> None:
        """Take over which capabilities may be used."""
        self.sends_deadlines = "request_deadline" in capabilities
        self.sends_traces = "trace_context" in capabilities

    def _queues(self) -> tuple[deque[Call], ...]:
        if self._waiting is None or self._waiting_large is None:
            return ()
        return self._waiting, self._waiting_large

    def begin(
        self,
        route: tuple[str, str, bytes],
        payload: bytes,
        timeout: float | None,
        *,
        items: Items | None = None,
        reads: bool = False,
        request_id: bytes | None = None,
        repeats: bool = False,
    ) -> Call:
        """Send a call, or keep it until it can be sent; watch its ``timeout`` in seconds.

        ``route`` is the service, the method and metadata entries. ``items`` are the call's own, or
        ``reads``. A call made by a handler has no more time than its request has left, and belongs to the same trace.
        """
        if running_loop() is not self._loop or self._home.forked_from:
            raise self._home.wrong_loop()
        if timeout is not None and not (timeout.__class__ in _NUMBERS and timeout > 0):
            check_timeout(timeout)
        call = Call(loop=self._loop)
        call.caller = self
        call.route = route
        call.payload = payload if type(payload) is bytes else as_bytes(payload)
        call.items = items
        call.reads = reads
        call.request_id = request_id
        call.repeats = repeats
        call.stream = 0
        link = self._link
        if link.ending is not None:
            call.set_exception(link.lost_error("not_applied"))
        elif link.draining:
            self.refuse(call)
        else:
            scope = current.get()
            if scope is not None and scope.under_way:
                if scope.deadline is not None:
                    left = scope.deadline - self._loop.time()
                    if left <= 0:
                        call.set_exception(failure(Code.DEADLINE_EXCEEDED, outcome="not_applied").exception())
                        return call
                    timeout = left if timeout is None else min(left, timeout)
                trace = scope.trace
                if trace is not None and self.telemetry is None and self.sends_traces:
                    call.add_entries(trace.child().entries())
            if self.telemetry is not None:
                trace = self.telemetry.begin_call(call)
                if trace is not None and self.sends_traces:
                    call.add_entries(trace.entries())
            if not self.waits and self._send(call, timeout):
                self._one_by_one = self._one_by_one + 1 if len(self.calls) == 1 else 0
                if timeout is not None:
                    self._deadlines.add(call.stream, self._loop.time() + timeout)
                if self._one_by_one > _ONE_BY_ONE_MIN:
                    link.send_now()
                else:
                    link.schedule_request(call.stream, self.calls)
            elif self._connection.going_away:
                self.refuse(call)
            else:
                self._enqueue(call, len(call.payload), timeout)
        return call

    @staticmethod
    def refuse(call: Call) -> None:
        """End a call that can no longer be sent here, but elsewhere."""
        call.set_result(Answer(b"", failure(Code.GOING_AWAY, outcome="not_applied")))
        call.wake()

    def _send(self, call: Call, timeout: float | None) -> bool:
        """Send a call, if it can be sent now."""
        service, method, entries = call.route
        if timeout is not None and self.sends_deadlines:
            if timeout != self._usual_timeout:
                self._usual_timeout, self._usual_entry = timeout, encode_timeout(timeout)
            entries += self._usual_entry
        items = call.items
        stream = self._connection.try_request(
            service,
            method,
            call.payload,
            request_id=call.request_id,
            streaming=items is not None and items.sends,
            entries=entries,
        )
        if not stream:
            return False
        call.stream = stream
        call.payload = b""  # the connection has it for as long as it is needed
        self.calls[stream] = call
        if items is not None:
            items.open_room()
        return True

    def _enqueue(self, call: Call, size: int, timeout: float | None) -> None:
        if self._waiting is None or self._waiting_large is None:
            self._waiting, self._waiting_large = deque(), deque()
        waiting = len(self._waiting) + len(self._waiting_large) - self._waiting_done
        if waiting >= WAITING_CALLS_MAX or self._waiting_size + size > WAITING_SIZE_MAX:
            reason = failure(
                Code.TOO_MANY_REQUESTS, {"reason": "too many calls wait to be sent"}, outcome="not_applied"
            )
            call.set_result(Answer(b"", reason))
            return
        agreement = self._connection.agreement
        # A request that is larger than a frame needs one of few slots; a small one must not wait behind it.
        large = agreement is not None and size > agreement.peer_limits.max_frame
        (self._waiting_large if large else self._waiting).append(call)
        self.waits = True
        self._waiting_size += size
        call.number = 0
        if timeout is not None:
            self._unsent_last -= 1
            call.number = self._unsent_last
            call.due = self._loop.time() + timeout
            self._unsent[call.number] = call
            self._unsent_deadlines.add(call.number, call.due)

    def begin_waiting(self) -> None:
        """Send waiting calls, as far as there is room now."""
        for queue in self._queues():
            while queue:
                call = queue[0]
                if call.done():
                    del queue[0]
                    self._waiting_done -= 1
                    continue
                size = len(call.payload)
                if not self._connection.can_request(size):
                    break
                del queue[0]
                self._waiting_size -= size
                try:
                    self._begin_late(call)
                except LocalProtocolError as error:
                    call.set_exception(error)
                    call.wake()
        self.waits = any(self._queues())

    def _begin_late(self, call: Call) -> None:
        if self._unsent.pop(call.number, None) is None:
            self._send(call, None)
            self._link.schedule_request(call.stream, self.calls)
            return
        left = call.due - self._loop.time()
        if left > 0:
            self._send(call, left)
            self._link.schedule_request(call.stream, self.calls)
            self._deadlines.add(call.stream, call.due)
        else:
            call.set_exception(failure(Code.DEADLINE_EXCEEDED, outcome="not_applied").exception())
            call.wake()

    def _take_waiting(self) -> list[Call]:
        waiting = [call for queue in self._queues() for call in queue if not call.done()]
        self._waiting = self._waiting_large = None
        self.waits = False
        self._unsent.clear()
        self._waiting_size = self._waiting_done = 0
        return waiting

    def refuse_waiting(self) -> None:
        """The other side takes no more requests: unsent calls can be sent elsewhere."""
        for call in self._take_waiting():
            self.refuse(call)

    def end_first(self, events: Sequence[Event]) -> int:
        """End the calls whose answers stand in a row at the beginning of ``events``; return how many events these are.

        Most events of a caller are such answers. All are taken in one loop, because a call of a function for each costs
        as much as its work.
        """
        calls = self.calls
        for place, event in enumerate(events):
            if type(event) is not ResponseReceived:
                return place
            call = calls.pop(event.stream, None)
            if call is not None and not call.done():
                call.set_result(Answer(event.payload, None, event.entries))
                if call.items is not None:
                    call.items.wake()
        return len(events)

    def end(self, stream: int, answer: Answer) -> None:
        """A call has its answer."""
        call = self.calls.pop(stream, None)
        if call is not None and not call.done():
            call.set_result(answer)
            if call.items is not None:
                call.items.wake()

    def fail(self, stream: int, answer: Answer) -> None:
        """A call has failed here. A change is no longer held where its caller will not send it again."""
        call = self.calls.get(stream)
        if call is None or call.done() or not call.repeats:
            self._connection.release(stream)
        self.end(stream, answer)

    def release(self, call: Call) -> None:
        """A change will not be sent again."""
        if call.stream:
            self._connection.release(call.stream)

    def add_item(self, stream: int, payload: bytes | PackedItem) -> bool:
        """Take an item of an answer; False if no one will read it.

        A call for one answer is given up, because its caller takes no items.
        """
        call = self.calls.get(stream)
        if call is None:
            return False
        if not call.reads:
            service, method, _ = call.route
            message = f"{service}.{method} answers with items: Peer.stream takes them, and not a call for one answer"
            error = LocalProtocolError(Code.PROTOCOL_VIOLATION, message)
            error.outcome = "unknown"  # the method runs already
            self._give_up(call, error)
            return False
        assert call.items is not None
        call.items.add(payload)
        return True

    def abandon(self, call: Call) -> None:
        """A call is cancelled or timed out; its stream ends when the other side has answered."""
        if call.stream:
            self._connection.cancel(call.stream)
            if call.reads and call.items is not None:
                call.reads = False
                for _ in call.items.arrived:
                    self._connection.take_item(call.stream)
                call.items.arrived.clear()
            self._link.schedule_flush()
            return
        self._unsent.pop(call.number, None)
        self._waiting_size -= len(call.payload)
        call.payload = b""
        self._waiting_done += 1
        if self._waiting_done * 2 > sum(map(len, self._queues())):
            # The call itself is about to be done; each sweep halves the list, so a call costs a constant.
            for queue in self._queues():
                kept = [each for each in queue if each is not call and not each.done()]
                queue.clear()
                queue.extend(kept)
            self._waiting_done = 0
            self.waits = any(self._queues())

    def _give_up(self, call: Call, error: BaseException) -> None:
        if not call.done():
            self.abandon(call)
            call.set_exception(error)
            call.wake()

    def _expire(self, stream: int) -> None:
        self._give_up(self.calls[stream], failure(Code.DEADLINE_EXCEEDED, outcome="unknown").exception())
        self._link.probe()

    def _expire_unsent(self, number: int) -> None:
        self._give_up(self._unsent[number], failure(Code.DEADLINE_EXCEEDED, outcome="not_applied").exception())
        self._link.probe()

    def make_room(self, stream: int) -> bool:
        """Let a call send more items; False if none is under way on the stream."""
        call = self.calls.get(stream)
        if call is None:
            return False
        if call.items is not None:
            call.items.open_room()
        return True

    async def send_items(self, call: Call, items: Items, source: AsyncIterable[bytes]) -> None:
        """Send the items of ``source`` behind a streaming request, waiting for room.

        An exception of ``source`` cancels the call and becomes its outcome.
        """
        try:
            while not call.stream and not call.done():
                await items.wait_room()
            async for item in source:
                if call.done():
                    return
                room = self._connection.send_item(call.stream, item if type(item) is bytes else as_bytes(item))
                self._link.schedule_flush()
                if not room:
                    await items.wait_room()
            if not call.done():
                self._connection.finish(call.stream)
                self._link.schedule_flush()
        except asyncio.CancelledError:
            # The end of a call cancels this; before that end it is the items that were cancelled.
            call.cancel()
            raise
        except Exception as error:
            self._give_up(call, error)

    def close(self, sent: Outcome) -> None:
        """Fail all calls: the connection is over. ``sent`` is the outcome of calls that were sent.

        Calls behind the last stream that the other side's GOAWAY names were certainly not applied.
        """
        lost = self._link.lost_error
        calls = list(self.calls.values())
        unsent = self._take_waiting()
        self.calls.clear()
        self._deadlines.close()
        self._unsent_deadlines.close()
        last = self.last_taken
        for call in calls:
            if not call.done():
                call.set_exception(lost("not_applied" if last is not None and call.stream > last else sent))
            call.wake()
        for call in unsent:
            call.set_exception(lost("not_applied"))
            call.wake()
