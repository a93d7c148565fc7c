"""The kv service (spec/protocol.md 7): requests to commands, a batch at a time.

All that one connection sent in one turn of the loop comes in one call of `handle`. Its reads go to the command
interface as one list and are answered at once; its writes go as another and are answered together, when they are
durable. A write that is cancelled meanwhile is dropped as long as it is not with the disk.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from haptera.errors import Code, Failure, ShuttingDown, failure
from haptera.node.commands import Envelope
from haptera.node.services.answer_shares import Answers
from haptera.node.services.kv_methods import METHODS, SERVICE
from haptera.node.services.kv_terms import Terms
from haptera.node.services.large_requests import LARGE_SIZE, LargeRequests, is_burden, is_large_list, while_wanted
from haptera.node.services.long_reads import LongReads, Reading, is_get_many
from haptera.node.services.msgpack_slices import PIECE_SIZE, decode_steps
from haptera.node.services.replies import Replies
from haptera.node.services.submitters import submitter_of
from haptera.node.services.tasks import Tasks
from haptera.node.services.transact_argument import TransactArgument
from haptera.node.services.write_requests import Writes, command_of, digest_of
from haptera.peer import Request, Service
from haptera.state import Write, free_steps, operations

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haptera.node.commands import Commands, Submitter
    from haptera.node.metrics import Metrics
    from haptera.node.services.recording import AuditRecording
    from haptera.node.watches import Watches
    from haptera.peer import Peer
    from haptera.state import Operation, Permits, Result, Steps


class KvService(Service):
    """Serves the store to the peers of a node."""

    name = SERVICE

    def __init__(
        self, commands: Commands, metrics: Metrics, watches: Watches, recording: AuditRecording | None = None
    ) -> None:
        self._commands = commands
        self._watches = watches
        self._metrics = metrics
        self._requests = metrics.requests(self.name, METHODS)
        self._replies = Replies(commands, metrics, None if recording is None else recording.requests.denied)
        self._recorded = None if recording is None else recording.commands(self._replies.followed)
        #: The time from which a batch of reads is recorded.
        self._recorded_from_s = float("inf") if self._recorded is None else self._recorded.reads_from_s
        self._tasks = Tasks(commands.turns)
        self._reads = LongReads(commands, metrics, self._replies, self._tasks, self._recorded)
        self._answers = Answers(commands, metrics)
        self._writes = Writes(commands, metrics, self._replies, self._answers, self._recorded)

    def methods(self) -> Sequence[str]:
        """The methods' names, for `session.describe`."""
        return tuple(METHODS)

    def handle(self, requests: list[Request]) -> None:
        """Answer the requests of one connection: reads now, writes when they are durable."""
        started, counts = time.perf_counter(), self._requests
        reads: list[Request] = []
        read_commands: list[Envelope] = []
        writes: list[Request] = []
        write_commands: list[Envelope] = []
        peer = requests[0].peer
        session, terms = submitter_of(peer), Terms.of(peer)
        methods, permits = terms.methods, session.permits()
        if permits is not None and not permits.burdens:
            permits = None
        for request in requests:
            method = methods.get(request.method)
            if method is None:
                self._replies.fail(request, _unknown_method(request))
                continue
            counts[request.method] += 1
            size = len(request.payload)
            many = method.bytes_per_unit
            if (
                size > LARGE_SIZE
                or (many and is_large_list(size, many, self._commands.turns))
                or (permits is not None and is_burden(size, permits, self._commands.turns))
            ):
                self._take_large(request)
                continue
            op = method.decode(request.payload)
            if isinstance(op, Failure):
                self._replies.fail(request, op)
            elif method.version_at is not None:
                command = command_of(op, request, terms)
                if isinstance(command, Failure):
                    self._replies.fail(request, command)
                else:
                    writes.append(request)
                    write_commands.append(command)
            elif isinstance(op, operations.OpenWatch):
                self._watch(session, request, op)
            elif not self._reads.takes(session, request, op):
                reads.append(request)
                read_commands.append(Envelope(op))
        self._metrics.kv_reads_total += len(reads)
        results: list[Result] = []
        if reads:
            answer = self._replies.answer
            results = self._commands.submit(session, read_commands, lambda found: answer(reads, found)).results
        if writes:
            self._writes.submit(session, peer, writes, write_commands)
        seconds = time.perf_counter() - started
        self._metrics.kv_handler_seconds_total += seconds
        if seconds >= self._recorded_from_s and self._recorded is not None:
            self._recorded.answered(reads, read_commands, results, seconds)

    def stop(self) -> None:
        """End the watches, which would go on for longer than a node has to stop."""
        self._watches.stop()

    def answers_read(self, peer: Peer, below: int) -> None:
        """Forget the answers that a connection has read."""
        self._answers.read(peer, below)

    def _watch(
        self, session: Submitter, request: Request, op: operations.OpenWatch, judged: Permits | None = None
    ) -> None:
        """Have the request followed by the changes that it asks for."""
        watch = self._watches.open(session, op, request, request.peer, judged)
        if self._recorded is not None:
            self._recorded.opened(request, op, watch if isinstance(watch, Failure) else None)
        if isinstance(watch, Failure):
            self._replies.fail(request, watch)
            return
        request.on_cancel = lambda: self._watches.close(watch, failure(Code.CANCELLED, outcome="not_applied"))

    def _take_large(self, request: Request) -> None:
        """Keep a request whose argument is large, to be answered in turns."""
        large = LargeRequests.of(request.peer, self._answer_large)
        large.add(request)
        if not large.running:
            large.running = True
            self._tasks.start(large.run())

    async def _answer_large(self, request: Request) -> None:
        session, turns, peer = submitter_of(request.peer), self._commands.turns, request.peer
        elements: list[Any] = []
        written = False
        try:
            command = await turns.run(peer, while_wanted(request, self._checked(session, request, elements)))
            while (
                isinstance(command, Envelope) and command.judged is not None and command.judged is not session.permits()
            ):
                command = await turns.run(peer, while_wanted(request, self._commands.judge_steps(session, command)))
            if command is None:
                self._replies.fail(request, failure(Code.CANCELLED, outcome="not_applied"))
            elif isinstance(command, Failure):
                self._replies.fail(request, command)
            elif isinstance(command.op, Write):
                written = self._writes.submit(session, peer, [request], [command], elements)
            elif isinstance(command.op, operations.OpenWatch):
                self._watch(session, request, command.op, command.judged)
            elif is_get_many(command.op):
                self._metrics.kv_reads_total += 1
                op = command.op
                await self._reads.followed(request, op, lambda: self._reads.read(session, request, op))
            elif not self._reads.takes(session, request, command.op):
                self._metrics.kv_reads_total += 1
                begun = time.perf_counter()
                answer = self._replies.answer
                results = self._commands.submit(session, [command], lambda found: answer([request], found)).results
                if (seconds := time.perf_counter() - begun) >= self._recorded_from_s and self._recorded is not None:
                    self._recorded.answered([request], [command], results, seconds)
        except Exception as error:
            self._replies.fail_for(request, error, "request_failed")
        finally:
            if elements and not written:
                with suppress(ShuttingDown):
                    await turns.run(peer, free_steps(elements))

    def _checked(self, submitter: Submitter, request: Request, elements: list[Any]) -> Steps[Envelope | Failure]:
        """The command that a large argument is, decoded and checked in slices; `elements` as of `decode_steps`."""
        terms, payload = Terms.of(request.peer), request.payload
        method = terms.methods[request.method]
        checked: Envelope | None = None
        op: Operation | Failure
        if isinstance(method, TransactArgument):
            op = yield from method.decode_steps(payload)
        elif method.list_field:
            op = yield from decode_steps(method, payload, elements)
        else:
            op = method.decode(payload)
        if isinstance(op, Failure):
            return op
        permits = submitter.permits()
        burdened = permits is not None and permits.burdens and not isinstance(op, Reading)
        if burdened or isinstance(op, (operations.SetMany, operations.DeleteMany)):
            found = yield from self._commands.check_steps(submitter, op)
            if isinstance(found, Failure):
                return found
            checked = found
        if method.version_at is None:
            return checked or Envelope(op)
        digest = digest_of(request.method)
        for start in range(0, len(payload), PIECE_SIZE):
            digest.update(memoryview(payload)[start : start + PIECE_SIZE])
            yield PIECE_SIZE // 256
        return command_of(op, request, terms, digest.digest(), checked)


def _unknown_method(request: Request) -> Failure:
    """The refusal of a method that is not there, or whose capability the connection does not have."""
    details = {"service": SERVICE, "method": request.method}
    method = METHODS.get(request.method)
    if method is not None:
        details["capability"] = str(method.group)
    return failure(Code.UNKNOWN_METHOD, details)
