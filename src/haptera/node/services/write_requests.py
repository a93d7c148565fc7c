"""The writes of the kv service: the id and the digest under which each is submitted, and its result."""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from haptera.key_rules import VALUE_SIZE_MAX, size_refusal
from haptera.node.commands import Envelope
from haptera.node.services.kv_methods import METHODS, SERVICE
from haptera.node.write_batch import DROPPED
from haptera.state import ANSWER_OVERHEAD, ENTRY_OVERHEAD, free_steps, limits, operations

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haptera.errors import Failure
    from haptera.node.commands import Commands, Submitter
    from haptera.node.metrics import Metrics
    from haptera.node.services.answer_shares import Answers
    from haptera.node.services.kv_terms import Terms
    from haptera.node.services.recorded_commands import RecordedCommands
    from haptera.node.services.replies import Replies
    from haptera.node.write_batch import Submission
    from haptera.peer import Peer, Request
    from haptera.state import Operation, Result


#: Bytes of the largest answer with an entry of before, and of the largest to a transact.
PREVIOUS_SIZE_MAX = VALUE_SIZE_MAX + ANSWER_OVERHEAD
TRANSACT_OVERHEAD = ANSWER_OVERHEAD + limits.TRANSACT_PARTS_MAX * ENTRY_OVERHEAD

#: A peer that takes messages of this size takes the answer to any change.
ANSWER_SIZE_MAX = max(PREVIOUS_SIZE_MAX, limits.TRANSACT_VALUES_SIZE_MAX + TRANSACT_OVERHEAD)


class Writes:
    """Submits changes, and answers them when they are durable."""

    def __init__(
        self,
        commands: Commands,
        metrics: Metrics,
        replies: Replies,
        answers: Answers,
        recorded: RecordedCommands | None = None,
    ) -> None:
        self.commands = commands
        self.recorded = recorded
        self.fail: Final = replies.fail
        self.replies: Final = replies
        self.answers: Final = answers
        self._metrics = metrics

    def submit(
        self,
        submitter: Submitter,
        peer: Peer,
        requests: list[Request],
        commands: list[Envelope],
        elements: list[Any] | None = None,
    ) -> bool:
        """Submit changes of one connection, as many as its share of the remembered answers has room for.

        The long list of a large one, ``elements``, is freed when it has its result. False where none was submitted.
        """
        ids = [command.request_id for command in commands]
        identified = len(ids) - ids.count(None)
        if identified and not self.answers.admits(submitter, peer, identified):
            requests, commands = self._admitted(submitter, peer, requests, commands)
            if not requests:
                return False
            ids = [command.request_id for command in commands]
        self._metrics.kv_writes_total += len(requests)
        submitted = _Submitted(self, requests, submitter, peer, commands, ids, elements)
        on_cancel = submitted.on_cancel
        for request in requests:
            request.on_cancel = on_cancel
        submission = self.commands.submit(submitter, commands, submitted.done)
        if submission.waiting:
            submitted.submission = submission
        return True

    def _admitted(
        self, submitter: Submitter, peer: Peer, requests: list[Request], commands: list[Envelope]
    ) -> tuple[list[Request], list[Envelope]]:
        admitted: tuple[list[Request], list[Envelope]] = ([], [])
        for request, command in zip(requests, commands, strict=True):
            request_id = command.request_id
            refused = None if request_id is None else self.answers.admit(submitter, peer, request_id)
            if refused is None:
                admitted[0].append(request)
                admitted[1].append(command)
            else:
                self.fail(request, refused)
        return admitted


class _Submitted(msgspec.Struct, eq=False):
    """The writes of one connection and turn, and the end of the ones that no caller waits for any more.

    A write that is cancelled, or whose time is over, before it is with the disk is taken back. Later it has its result,
    which is the answer. All that are cancelled in one turn of the loop are looked for together, at its end.
    """

    writes: Writes
    requests: "list[Request]"
    submitter: "Submitter"
    peer: "Peer"
    commands: list[Envelope]
    ids: list[bytes | None]
    elements: list[Any] | None = None  # the long list of a large change: to be freed in slices
    looking: bool = False
    submission: "Submission | None" = None  # while a result is waited for

    def done(self, results: list[Result]) -> None:
        """All have their results: answer the requests."""
        submission, self.submission = self.submission, None
        writes = self.writes
        recorded = writes.recorded
        if recorded is not None:
            begun = time.perf_counter() if submission is None else submission.begun
            recorded.written(self.requests, self.commands, results, begun)
        # Each request refers to this object: left as they are, they would be a circle, and work for the collector.
        requests, self.requests = self.requests, []
        writes.answers.settle(self.submitter, self.peer, requests, self.commands, self.ids, results)
        writes.replies.answer(requests, results)
        if self.elements:
            writes.commands.turns.start(self.peer, free_steps(self.elements))

    def on_cancel(self) -> None:
        """A request is cancelled, or its time is over."""
        if not self.looking and self.submission is not None:
            self.looking = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        self.looking = False
        submission = self.submission
        if submission is None:
            return
        for position, request in enumerate(self.requests):
            if request.cancelled and self.writes.commands.drop(submission, position):
                self.writes.fail(request, DROPPED)


def digest_prefix(service: str, method: str) -> bytes:
    """The part of a digest's input before the argument: service and method, each behind its length."""
    return b"".join(len(name).to_bytes(1, "big") + name for name in (service.encode(), method.encode()))


_DIGEST_PREFIXES = {
    name: digest_prefix(SERVICE, name) for name, method in METHODS.items() if method.version_at is not None
}


def digest_of(method: str) -> Any:
    """A SHA-256 of service and method, to which the argument is still to be added."""
    return hashlib.sha256(_DIGEST_PREFIXES[method])


def command_of(
    op: Any, request: Request, terms: Terms, digest: bytes | None = None, checked: Envelope | None = None
) -> Envelope | Failure:
    """The command that a request of a connection with these terms asks for; of a large one its `digest`, and what it
    is as far as it is `checked`. 3004 if the peer could not take the answer: the change would be applied, and not be
    answered.
    """
    message_max = terms.message_max
    if message_max < ANSWER_SIZE_MAX and message_max < _largest_answer(op):
        return size_refusal(message_max)
    request_id = request.request_id if terms.identifies else None
    if request_id is None:
        return checked or Envelope(op)
    if digest is None:
        digest = hashlib.sha256(_DIGEST_PREFIXES[request.method] + request.payload).digest()
    if checked is None:
        return Envelope(op, request_id, digest, request.resent)
    return Envelope(op, request_id, digest, request.resent, checked.size, checked.growth, checked.judged)


def _largest_answer(op: Operation) -> int:
    """Return the bytes that the answer to a change may have, if it has values; else 0."""
    if isinstance(op, operations.Transact):
        values = max(map(_values_given, (op.then, op.otherwise)))
        return min(values * VALUE_SIZE_MAX, limits.TRANSACT_VALUES_SIZE_MAX) + TRANSACT_OVERHEAD
    return PREVIOUS_SIZE_MAX if _gives_value(op) else 0


def _values_given(branch: Sequence[Operation]) -> int:
    """The number of operations of a transact that give a value."""
    return sum(isinstance(op, operations.Get) or _gives_value(op) for op in branch)


def _gives_value(op: Operation) -> bool:
    """Whether a change answers with an entry."""
    if isinstance(op, (operations.GetAndDelete, operations.GetAndExpire)):
        return True
    return isinstance(op, (operations.Set, operations.Delete)) and op.return_previous
