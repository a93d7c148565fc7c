"""The kv service (spec/protocol.md 7): requests to commands and results to answers, a batch at a time.

All that one connection sent in one turn of the loop comes in one call of `handle`. Its reads go to the command
interface as one list and are answered at once; its writes go as another and are answered together, when they are
durable. A write that is cancelled meanwhile is dropped as long as it is not with the disk.

Every RESPONSE says which revision of the store it saw (tag 0x0B): for a write that changed something, the revision
that it made; else the revision that was applied when it was read or judged. ERROR does not carry it.

The rows of a scan with ``keys_only`` have the same four places, with nil for the value.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from typing import TYPE_CHECKING, Any

import msgspec

from haptera.errors import Code, Failure, LocalProtocolError, failure
from haptera.key_rules import VALUE_SIZE_MAX, size_refusal
from haptera.node.batch import DROPPED
from haptera.node.commands import ANONYMOUS, Command
from haptera.node.scans import Cursor, page_steps
from haptera.node.services.answers import Answers
from haptera.node.services.arguments import METHODS, SERVICE
from haptera.node.services.large import (
    LARGE_SIZE,
    LargeRequests,
    is_large_list,
    units_of_values,
    while_wanted,
    writable,
)
from haptera.node.services.pieces import PIECE_SIZE, decode_steps, encode_steps
from haptera.peer import Request, Service
from haptera.state.commands import Count, Delete, DeleteMany, GetMany, Scan, Set, SetMany
from haptera.state.limits import COMMAND_SIZE_MAX
from haptera.state.results import ENTRY_OVERHEAD, Replayed
from haptera.state.steps import free_steps
from haptera.state.validation import validate_steps
from haptera.wire.metadata import Tag

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from haptera.node.batch import Submission
    from haptera.node.commands import Commands, Session
    from haptera.node.metrics import Metrics
    from haptera.peer import Peer
    from haptera.state.commands import Operation
    from haptera.state.results import Entry, Result
    from haptera.state.steps import Steps

log = logging.getLogger(__name__)

PAGE_SIZE_MAX = 64 * 1024
"""Bytes of one page of a scan, unless one row is larger: one turn of the connection, a quarter of a default window."""

GET_MANY_SIZE_MAX = COMMAND_SIZE_MAX
"""Bytes of the largest answer to get_many, whatever the peer would take: as many as of a command. A few bytes of keys
can ask for as much as the store holds, once for each."""

PAGE_ROWS_MAX = 1024
"""Rows of one page, so that a page of small rows too is taken in a fraction of a millisecond."""

ANSWER_OVERHEAD = 1024
"""Bytes that an answer to a change needs beside a previous value and its key: more than any has."""

TASK_WORK = 128
"""Units of work (`haptera.state.steps`) of the first step of a scan's or count's task, and of its last."""

_WITH_VALUES = (bytes, list)
"""The first field of the results of get and get_many."""

_REPLAYED = bytes((Tag.REPLAYED, 0))
_REVISION_HEAD = bytes((Tag.REVISION, 8))


def _digest_prefix(method: str) -> bytes:
    """What comes before the argument in a digest: service and method, each behind its length."""
    return b"".join(len(name).to_bytes(1, "big") + name for name in (SERVICE.encode(), method.encode()))


_DIGESTS = {
    name: hashlib.sha256(_digest_prefix(name)) for name, method in METHODS.items() if method.version_at is not None
}


class KvService(Service):
    """Serves the store to the peers of a node."""

    name = SERVICE

    def __init__(self, commands: Commands, metrics: Metrics) -> None:
        self._commands = commands
        self._metrics = metrics
        self._answers = Answers(commands, metrics)
        self._requests = metrics.requests(self.name, METHODS)
        self._encode = msgspec.msgpack.Encoder().encode
        self._tasks: set[asyncio.Task[None]] = set()  # one for each scan and count, and one for each connection

    def methods(self) -> Sequence[str]:
        """The methods' names, for `session.describe`."""
        return tuple(METHODS)

    def handle(self, requests: list[Request]) -> None:
        """Answer the requests of one connection: reads now, writes when they are durable."""
        started, counts = time.perf_counter(), self._requests
        reads: list[Request] = []
        read_commands: list[Command] = []
        writes: list[Request] = []
        write_commands: list[Command] = []
        session = ANONYMOUS
        for request in requests:
            method = METHODS.get(request.method)
            if method is None:
                self._fail(request, failure(Code.UNKNOWN_METHOD, {"service": self.name, "method": request.method}))
                continue
            counts[request.method] += 1
            size = len(request.payload)
            if size > LARGE_SIZE or (method.list_field and is_large_list(size, self._commands.turns)):
                self._take_large(request)
                continue
            op = method.decode(request.payload)
            if isinstance(op, Failure):
                self._fail(request, op)
            elif method.version_at is not None:
                if _previous_might_not_fit(op, request.peer):
                    self._fail(request, size_refusal(request.peer.max_message))
                    continue
                writes.append(request)
                write_commands.append(_write_command(op, request))
            elif not self._takes_turns(session, request, op):
                reads.append(request)
                read_commands.append(Command(op))
        self._metrics.kv_reads_total += len(reads)
        if reads:
            self._commands.submit(session, read_commands, lambda results: self._answer(reads, results, 0))
        if writes:
            self._write(session, writes, write_commands)
        self._metrics.kv_handler_seconds_total += time.perf_counter() - started

    def _fail(self, request: Request, reason: Failure, entries: bytes = b"") -> None:
        self._metrics.kv_failures_total += 1
        request.fail(reason, entries)

    def _answer(
        self,
        requests: list[Request],
        results: list[Result],
        start: int,
        now: bytes | None = None,
        *,
        admitted: bool = False,
    ) -> None:
        """Answer from `start` on, all of one connection, until as much waits to be written as may.

        What is left goes on when there is room again. It holds references to values that are in the store anyway, so
        waiting costs no memory that a peer could choose; if the connection ends, it is dropped with it. `now` is the
        revision that the results are of. Values too large for this turn of the loop are encoded in a later one, unless
        the first was `admitted`.
        """
        encode = self._encode
        now = now or _revision_entry(self._commands.revision)
        for position in range(start, len(requests)):
            request, result = requests[position], results[position]
            peer = request.peer
            if not peer.writable:
                peer.when_writable(lambda at=position: self._answer(requests, results, at, now))  # type: ignore[misc]
                return
            if type(result) is tuple and type(result[0]) in _WITH_VALUES and not admitted:
                turns, units = self._commands.turns, units_of_values(result[0])
                if units and not turns.admits(units):
                    turns.start(peer, self._answer_later(requests, results, position, now, units))
                    return
            admitted = False
            replayed = b""
            if isinstance(result, Replayed):
                result, replayed = result.result, _REPLAYED
                self._metrics.kv_replayed_total += 1
            if type(result) is tuple:
                version_at = METHODS[request.method].version_at
                version = None if version_at is None else result[version_at]
                entries = (now if version is None else _revision_entry(version)) + replayed
            elif result is DROPPED:
                continue  # answered when it was
            else:
                assert isinstance(result, Failure)
                self._fail(request, result, replayed)
                continue
            if type(result[0]) is list:
                refused = too_many_bytes(result[0], peer.max_message)
                if refused is not None:
                    self._fail(request, refused)
                    continue
            request.respond(encode(result), entries)

    def _answer_later(
        self, requests: list[Request], results: list[Result], position: int, now: bytes, units: int
    ) -> Steps[None]:
        self._answer(requests, results, position, now, admitted=True)
        yield units

    def answers_read(self, peer: Peer, below: int) -> None:
        """Forget the answers that a connection has read."""
        self._answers.read(peer, below)

    def _settle(
        self, session: Session, requests: list[Request], commands: list[Command], results: list[Result]
    ) -> None:
        self._answers.settle(session, requests, commands, results)
        self._answer(requests, results, 0)

    def _take_large(self, request: Request) -> None:
        """Keep a request whose argument is large, to be answered in turns."""
        large = LargeRequests.of(request.peer, self._answer_large)
        large.add(request)
        if not large.running:
            large.running = True
            self._start(large.run())

    def _takes_turns(self, session: Session, request: Request, op: Operation) -> bool:
        """Whether a read is one that has to look at any number of keys; it is on its way then."""
        if isinstance(op, Scan):
            self._metrics.kv_scans_total += 1
            self._begin(request.peer, lambda: self._scan(session, request, op))
        elif isinstance(op, Count) and not self._commands.counts_at_once(op):
            self._metrics.kv_reads_total += 1
            self._begin(request.peer, lambda: self._count(session, request, op))
        else:
            return False
        return True

    def _begin(self, peer: Peer, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start a task for a request: now, or where many begin or end in this turn of the loop, in a later one."""
        turns = self._commands.turns
        if turns.admits(TASK_WORK):
            self._start(work())
        else:
            turns.start(peer, self._begin_steps(work))

    def _begin_steps(self, work: Callable[[], Coroutine[Any, Any, None]]) -> Steps[None]:
        self._start(work())
        yield TASK_WORK

    def _stop(self, peer: Peer, task: asyncio.Task[None]) -> None:
        """Cancel a task, in a later turn of the loop where many begin or end in this one."""
        turns = self._commands.turns
        if turns.admits(TASK_WORK):
            task.cancel()
        else:
            turns.start(peer, self._stop_steps(task))

    @staticmethod
    def _stop_steps(task: asyncio.Task[None]) -> Steps[None]:
        task.cancel()
        yield TASK_WORK

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer_large(self, request: Request) -> None:
        session, turns, peer = ANONYMOUS, self._commands.turns, request.peer
        elements: list[Any] = []
        written = False
        try:
            command = await turns.run(peer, while_wanted(request, self._checked(request, elements)))
            if command is None:
                self._fail(request, failure(Code.CANCELLED, outcome="not_applied"))
            elif isinstance(command, Failure):
                self._fail(request, command)
            elif command.op.version_at is not None:
                written = self._write(session, [request], [command], elements)
            elif isinstance(command.op, GetMany):
                self._metrics.kv_reads_total += 1
                await self._get_many(request, command.op)
            elif not self._takes_turns(session, request, command.op):
                self._metrics.kv_reads_total += 1
                self._commands.submit(session, [command], lambda results: self._answer([request], results, 0))
        except Exception:
            log.exception("request_failed", extra={"stream": request.stream, "method": request.method})
            self._fail(request, failure(Code.HANDLER_FAILED, outcome="not_applied"))
        finally:
            if elements and not written:
                await turns.run(peer, free_steps(elements))

    def _write(
        self,
        session: Session,
        requests: list[Request],
        commands: list[Command],
        elements: list[Any] | None = None,
    ) -> bool:
        """Submit changes of one connection, as many as its share of the remembered answers has room for.

        The long list of a large one, ``elements``, is freed when it has its result. False where none was submitted.
        """
        identified = len([command for command in commands if command.request_id is not None])
        if identified and not self._answers.admits(session, requests[0].peer, identified):
            requests, commands = self._admitted(session, requests, commands)
            if not requests:
                return False
        self._metrics.kv_writes_total += len(requests)
        _Writes(self, requests, session, commands, elements).submit()
        return True

    def _admitted(
        self, session: Session, requests: list[Request], commands: list[Command]
    ) -> tuple[list[Request], list[Command]]:
        admitted: tuple[list[Request], list[Command]] = ([], [])
        for request, command in zip(requests, commands, strict=True):
            request_id = command.request_id
            refused = None if request_id is None else self._answers.admit(session, request.peer, request_id)
            if refused is None:
                admitted[0].append(request)
                admitted[1].append(command)
            else:
                self._fail(request, refused)
        return admitted

    def _checked(self, request: Request, elements: list[Any]) -> Steps[Command | Failure]:
        """The command that a large argument is, decoded and checked in slices; `elements` as of `decode_steps`."""
        method, payload, size = METHODS[request.method], request.payload, None
        op = (yield from decode_steps(method, payload, elements)) if method.list_field else method.decode(payload)
        if isinstance(op, (SetMany, DeleteMany, GetMany)):
            found = yield from validate_steps(op)
            if isinstance(found, Failure):
                return found
            size = found
        if isinstance(op, Failure) or method.version_at is None:
            return op if isinstance(op, Failure) else Command(op, size=size)
        if _previous_might_not_fit(op, request.peer):
            return failure(Code.MESSAGE_TOO_LARGE, outcome="not_applied")
        digest = _DIGESTS[request.method].copy()
        for start in range(0, len(payload), PIECE_SIZE):
            digest.update(memoryview(payload)[start : start + PIECE_SIZE])
            yield PIECE_SIZE // 256
        return _write_command(op, request, digest.digest(), size)

    async def _get_many(self, request: Request, op: GetMany) -> None:
        """Answer a large get_many when there is room for it: it may be any number of times as large as the request."""
        await writable(request)
        answer = await self._commands.turns.run(request.peer, while_wanted(request, self._entries(request, op)))
        if isinstance(answer, tuple):
            payload, revision = answer
            request.respond(payload, _revision_entry(revision))
        else:
            self._fail(request, answer or failure(Code.CANCELLED, outcome="not_applied"))

    def _entries(self, request: Request, op: GetMany) -> Steps[tuple[bytes, int] | Failure]:
        size_max = min(request.peer.max_message, GET_MANY_SIZE_MAX) - ANSWER_OVERHEAD
        found = yield from self._commands.get_many_steps(op, size_max)
        if isinstance(found, Failure):
            return found
        entries, revision = found
        return (yield from encode_steps(entries)), revision

    async def _count(self, session: Session, request: Request, op: Count) -> None:
        task = asyncio.current_task()
        assert task is not None
        request.on_cancel = lambda: self._stop(request.peer, task)
        try:
            if request.cancelled:
                raise asyncio.CancelledError
            counted = await self._commands.count(session, op, request.peer)
            if isinstance(counted, Failure):
                self._fail(request, counted)
            else:
                request.respond(self._encode(counted[0]), _revision_entry(counted[1]))
        except asyncio.CancelledError:
            self._fail(request, failure(Code.CANCELLED, outcome="not_applied"))
        except Exception:
            log.exception("count_failed", extra={"stream": request.stream})
            self._fail(request, failure(Code.HANDLER_FAILED, outcome="not_applied"))

    async def _scan(self, session: Session, request: Request, op: Scan) -> None:
        task = asyncio.current_task()
        assert task is not None

        request.on_cancel = stop = lambda: self._stop(request.peer, task)
        cursor: Cursor | Failure | None = None
        try:
            if request.cancelled:
                raise asyncio.CancelledError
            cursor = await self._commands.open_scan(session, op, stop, request.peer)
            if isinstance(cursor, Failure):
                self._fail(request, cursor)
                return
            while True:
                # A row may be large: it is looked for when it can leave.
                await request.room()
                page = await self._commands.turns.run(request.peer, page_steps(cursor, PAGE_SIZE_MAX, PAGE_ROWS_MAX))
                if isinstance(page, Failure):
                    self._fail(request, page)
                    return
                if page.rows:
                    await request.send(self._encode(page.rows))
                if page.done:
                    break
            request.respond(self._encode(cursor.result), _revision_entry(cursor.revision))
        except asyncio.CancelledError:
            # The peer cancelled, or went away, or took nothing for too long.
            if isinstance(cursor, Cursor) and cursor.expired:
                request.fail(cursor.lost())
            else:
                request.fail(failure(Code.CANCELLED, outcome="not_applied"))
        except ConnectionError:
            pass  # nobody is left to be answered
        except LocalProtocolError as error:
            request.fail(error.failure("not_applied"))  # there is no memory for a row, or the peer takes none as large
        except Exception:
            log.exception("scan_failed", extra={"stream": request.stream})
            request.fail(failure(Code.HANDLER_FAILED, outcome="not_applied"))
        finally:
            if isinstance(cursor, Cursor):
                cursor.close()


class _Writes:
    """The writes of one connection and turn, and what becomes of those that nobody waits for any more.

    A write that is cancelled, or whose time is over, before it is with the disk is taken back. Later it has its result,
    which is the answer. All that are cancelled in one turn of the loop are looked for together, at its end.
    """

    __slots__ = ("_commands", "_elements", "_looking", "_requests", "_service", "_session", "_submission")

    def __init__(
        self,
        service: KvService,
        requests: list[Request],
        session: Session,
        commands: list[Command],
        elements: list[Any] | None = None,
    ) -> None:
        self._service = service
        self._elements = elements  # the long list of a large change: to be freed in slices
        self._requests = requests
        self._session = session
        self._commands = commands
        self._looking = False
        self._submission: Submission | None = None

    def submit(self) -> None:
        on_cancel = self._on_cancel
        for request in self._requests:
            request.on_cancel = on_cancel
        submission = self._service._commands.submit(self._session, self._commands, self._done)
        if submission.waiting:
            self._submission = submission

    def _done(self, results: list[Result]) -> None:
        self._submission = None
        # Each request refers to this object: left as they are, they would be a circle, and work for the collector.
        requests, self._requests = self._requests, []
        self._service._settle(self._session, requests, self._commands, results)
        if self._elements:
            self._service._commands.turns.start(requests[0].peer, free_steps(self._elements))

    def _on_cancel(self) -> None:
        if not self._looking and self._submission is not None:
            self._looking = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        self._looking = False
        submission = self._submission
        if submission is None:
            return
        for position, request in enumerate(self._requests):
            if request.cancelled and self._service._commands.drop(submission, position):
                self._service._fail(request, DROPPED)


def too_many_bytes(entries: list[Entry | None], message_max: int = GET_MANY_SIZE_MAX) -> Failure | None:
    """Why get_many does not answer with these entries (3004), or None: they are too large for one message.

    Asked before it is encoded: what a few bytes of keys ask for can be more than there is memory.
    """
    limit = min(message_max, GET_MANY_SIZE_MAX)
    size = sum(len(entry[0]) + ENTRY_OVERHEAD for entry in entries if entry is not None) + len(entries)
    return None if size <= limit - ANSWER_OVERHEAD else size_refusal(limit)


def _write_command(op: Any, request: Request, digest: bytes | None = None, size: int | None = None) -> Command:
    """The command; `digest` and `size` as far as they are known of a large one."""
    request_id, peer = request.request_id, request.peer
    if request_id is None or "idempotency" not in peer.capabilities:
        return Command(op, size=size)
    if digest is None:
        hasher = _DIGESTS[request.method].copy()
        hasher.update(request.payload)
        digest = hasher.digest()
    return Command(op, request_id, digest, request.resent, size)


def _previous_might_not_fit(op: Operation, peer: Peer) -> bool:
    """Whether the answer to a change could be larger than the peer takes: it would be applied, and not be answered."""
    if not isinstance(op, (Set, Delete)) or not op.return_previous:
        return False
    return peer.max_message < VALUE_SIZE_MAX + ANSWER_OVERHEAD


def _revision_entry(revision: int) -> bytes:
    return _REVISION_HEAD + revision.to_bytes(8, "big")
