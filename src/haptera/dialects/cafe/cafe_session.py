"""One connection of CAFE at a node: its commands go to the store, and their answers back (spec/cafe.md, section 4)."""

from __future__ import annotations

import os
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

from haptera.dialects.cafe.conversation import Asked, Conversation
from haptera.dialects.cafe.messages import COMPRESSED
from haptera.errors import Code, failure
from haptera.node.commands import Envelope, operations

if TYPE_CHECKING:
    from collections.abc import Callable

    from haptera.dialects.cafe.cafe_dialect import CafeSettings
    from haptera.errors import Failure
    from haptera.node.commands import Result, Submission
    from haptera.node.frontend import FrontendConnection

#: Commands, and bytes of them, that one turn of the loop does for one connection before others have theirs: half a
#: millisecond.
COMMANDS_PER_TURN: Final = 64
TURN_SIZE_MAX: Final = 256 * 1024
#: Changes of one connection that may wait for the disk, and the bytes of them: several batches, so that the disk always
#: has the next, and twice the largest value. Further messages stay in the socket until some are answered.
WRITES_MAX: Final = 4096
WRITES_SIZE_MAX: Final = 16 * 1024 * 1024
#: Bytes of answers that are joined before they are handed on.
JOINED_SIZE: Final = 64 * 1024

_WRONG_KEY: Final = "its first message was not made with the key of the listener"
_MEMORY: Final = "the node has no memory left for this message"


class CafeSession:
    """The session of one connection.

    The GETs of a turn are done before its changes, and never wait for one: an answer is made as soon as there is room
    for it.
    """

    def __init__(self, connection: FrontendConnection, settings: CafeSettings) -> None:
        self._connection = connection
        self._conversation = Conversation(
            settings.key, require_bind=settings.require_bind, entropy=os.urandom, codec=settings.codec
        )
        self._entered = False
        self._received = 0  # messages at the last look
        self._stopping = False
        self._lost = False
        self._scheduled = False
        self._writing: dict[int, Submission] = {}  # by a number of its own
        self._batches = 0
        self._writes = 0  # the changes that wait for the disk, and their bytes
        self._writes_size = 0
        self._ready: deque[tuple[Asked, Result]] = deque()  # results for whose answers there is no room yet

    def receive(self, data: bytes) -> None:
        """Take bytes that have arrived."""
        self._conversation.receive(data)
        self._work()

    def resume(self) -> None:
        """Go on: there is room for answers."""
        self._work()

    def refusal(self, reason: Failure) -> bytes:
        """Return the ERR that ends the connection for a reason of the node's."""
        return self._conversation.farewell(reason)

    def stop(self) -> None:
        """Take no command any more; close once the changes under way are answered."""
        self._stopping = True
        self._work()

    def lost(self) -> None:
        """Take back the changes that the disk does not have yet."""
        self._lost = True
        self._ready.clear()
        drop = self._connection.caller.commands.drop
        for submission in list(self._writing.values()):
            for position in range(len(submission.results)):
                drop(submission, position)

    # -- turns ------------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Give what answers there is room for, do one turn's commands, and have the next ones come in their turn."""
        if self._is_over():
            return
        self._answer()
        if self._may_go_on:
            self._turn()
            if self._is_over():
                return
        self._say_refusals()
        busy = self._conversation.more or not self._may_go_on
        self._account(busy=busy)
        if self._conversation.more and self._may_go_on:
            self._go_on_later()
        if (self._conversation.ended or self._stopping) and not (self._writes or self._ready):
            self._connection.close(self._conversation.fault)

    def _is_over(self) -> bool:
        """Whether nothing is to be done for the connection any more."""
        return self._lost or self._connection.ending

    def _go_on_later(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._connection.call_soon(self._later)

    def _later(self) -> None:
        self._scheduled = False
        self._work()

    @property
    def _may_go_on(self) -> bool:
        """Whether a further command may be done now."""
        return (
            not self._connection.full
            and not self._ready
            and self._writes < WRITES_MAX
            and self._writes_size < WRITES_SIZE_MAX
            and not (self._stopping or self._conversation.ended)
        )

    def _turn(self) -> None:
        """Do the next commands."""
        asked = self._conversation.asked(COMMANDS_PER_TURN, TURN_SIZE_MAX)
        if self._conversation.proved and not self._entered:
            self._entered = True
            self._connection.caller.come_in(signed=True)
            if self._is_over():  # the user has too many connections
                return
        fault = self._conversation.fault
        if not self._entered and fault is not None and fault.code == Code.SIGNATURE_MISMATCH:
            self._connection.caller.fail_proof(_WRONG_KEY)
        reads = [each for each in asked if type(each.op) is operations.Get]
        if reads:
            self._submit(reads, self._read)
        if len(reads) < len(asked):
            self._write([each for each in asked if type(each.op) is not operations.Get])

    def _read(self, asked: list[Asked], results: list[Result]) -> None:
        self._ready.extend(zip(asked, results, strict=True))
        self._answer()

    def _submit(self, asked: list[Asked], done: Callable[[list[Asked], list[Result]], None]) -> Submission:
        return self._connection.caller.submit([Envelope(each.op) for each in asked], partial(done, asked))

    def _write(self, asked: list[Asked]) -> None:
        """Have changes made."""
        self._batches = number = self._batches + 1
        self._writes += len(asked)
        self._writes_size += sum(each.size for each in asked)
        submission = self._submit(asked, partial(self._written, number))
        if submission.waiting:
            self._writing[number] = submission

    def _written(self, number: int, asked: list[Asked], results: list[Result]) -> None:
        """Take the results of changes."""
        within_turn = self._writing.pop(number, None) is None
        self._writes -= len(asked)
        self._writes_size -= sum(each.size for each in asked)
        if self._lost:
            return
        self._ready.extend(zip(asked, results, strict=True))
        if within_turn:
            self._answer()
        else:
            self._work()

    # -- answers ----------------------------------------------------------------------------------------------------

    def _answer(self) -> None:
        """Hand on the answers that there is room for. Compressed ones come in turns: a large value becomes a
        short answer, so that the room alone does not bound the work.
        """
        ready, connection, answer = self._ready, self._connection, self._conversation.answer
        out: list[bytes] = []
        size = compressed = 0
        while ready and not connection.full:
            if compressed >= TURN_SIZE_MAX:
                self._go_on_later()
                break
            asked, result = ready.popleft()
            if asked.flags & COMPRESSED:
                compressed += _value_size(result)
            made = answer(asked, result)
            out.append(made)
            size += len(made)
            if size >= JOINED_SIZE:
                connection.write(b"".join(out))
                out, size = [], 0
        if out:
            connection.write(out[0] if len(out) == 1 else b"".join(out))

    def _say_refusals(self) -> None:
        refusals = self._conversation.refusals
        if refusals:
            self._connection.write(b"".join(refusals))
            refusals.clear()

    def _account(self, *, busy: bool) -> None:
        """Have the bytes that are held counted, no more read than can be done, and messages that begin end in time."""
        connection, conversation = self._connection, self._conversation
        waiting = sum(_value_size(result) for _, result in self._ready)
        within = connection.charge(conversation.held + self._writes_size + waiting)
        if busy or (not within and self._writes):
            connection.pause_reading()
            connection.expect(None)
            return
        if not within:
            connection.end(failure(Code.TOO_MANY_REQUESTS, {"reason": "memory"}, message=_MEMORY), linger=True)
            return
        connection.resume_reading()
        expected = conversation.expected
        if conversation.received != self._received:  # the unfinished message is another one than at the last look
            self._received = conversation.received
            connection.expect(None)
        connection.expect(None if expected is None else max(0, expected - conversation.held))


def _value_size(result: Result) -> int:
    """Return the bytes of the value that a result has."""
    value = result[0] if isinstance(result, tuple) else None
    return len(value) if isinstance(value, bytes) else 0
