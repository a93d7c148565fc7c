"""The kv service (spec/protocol.md 7): requests to commands and results to answers, a batch at a time.

All that one connection sent in one turn of the loop comes in one call of `handle`. Its reads go to the command
interface as one list and are answered at once; its writes go as another and are answered together, when they are
durable. A write that is cancelled meanwhile is dropped as long as it is not with the disk.

Every RESPONSE says which revision of the store it saw (tag 0x0B): for a write that changed something, the revision
that it made; else the revision applied when it was answered. ERROR does not carry it.

The rows of a scan with ``keys_only`` have the same four places, with nil for the value.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from haptera.error_codes import Code
from haptera.errors import Failure, LocalProtocolError, failure
from haptera.node.batch import DROPPED
from haptera.node.commands import ANONYMOUS, Command
from haptera.node.scans import count
from haptera.node.services.arguments import METHODS
from haptera.peer import Request, Service
from haptera.state.commands import Count, Delete, Scan, Set
from haptera.state.limits import COMMAND_SIZE_MAX, VALUE_SIZE_MAX
from haptera.state.results import Replayed

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from haptera.node.batch import Submission
    from haptera.node.commands import Commands, Session
    from haptera.node.metrics import Metrics
    from haptera.node.scans import Cursor
    from haptera.peer import Peer
    from haptera.state.commands import Operation
    from haptera.state.results import Entry, Result

log = logging.getLogger(__name__)

PAGE_SIZE_MAX = 64 * 1024
"""Bytes of one page of a scan, unless one row is larger: one turn of the connection, a quarter of a default window."""

GET_MANY_SIZE_MAX = COMMAND_SIZE_MAX
"""Bytes of the largest answer to get_many, whatever the peer would take: as many as of a command. A few bytes of keys
can ask for as much as the store holds, once for each."""

PAGE_ROWS_MAX = 1024
"""Rows of one page, so that a page of small rows too is taken in a fraction of a millisecond."""

ANSWERS_TRACKED_MAX = 65536
"""Changes of one connection whose ids are kept for `answered_below`. A client says it every 64 changes at least; one
that never does has its ids forgotten by time, and costs no more memory here than this."""

ANSWER_OVERHEAD = 1024
"""Bytes that an answer to a change needs beside a previous value and its key: more than any has."""

ENTRY_OVERHEAD = 32
"""Bytes that an entry of an answer needs beside its value: headers, version, expiry."""

_TAG_REPLAYED = 0x09
_TAG_REVISION = 0x0B
_REPLAYED = bytes((_TAG_REPLAYED, 0))
_REVISION_HEAD = bytes((_TAG_REVISION, 8))

_VERSION_AT = {"set": 0, "delete": 1, "set_many": 0, "delete_many": 1, "increment": 1, "rename": 0, "clear": 1}
"""The methods that write, each with the place of the new version in its result (nil there: nothing was changed)."""

_TRACKED = "haptera.kv.answered"
"""The name, among a connection's attributes, of its changes that may still be forgotten: (stream, request_id)."""


def _digest_prefix(method: str) -> bytes:
    """What comes before the argument in a digest: service and method, each behind its length."""
    return b"".join(len(name).to_bytes(1, "big") + name for name in (b"kv", method.encode()))


_DIGESTS = {method: hashlib.sha256(_digest_prefix(method)) for method in _VERSION_AT}


class KvService(Service):
    """Serves the store to the peers of a node."""

    name = "kv"

    def __init__(self, commands: Commands, metrics: Metrics) -> None:
        self._commands = commands
        self._metrics = metrics
        self._requests = metrics.requests(self.name, METHODS)
        self._encode = msgspec.msgpack.Encoder().encode
        self._scans: set[asyncio.Task[None]] = set()  # bounded by state.limits.CURSORS_MAX

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
                self._fail(request, failure(Code.UNKNOWN_METHOD, {"service": "kv", "method": request.method}))
                continue
            counts[request.method] += 1
            op = method.decode(request.payload)
            if request.answered_below is not None:
                self._forget(session, request.peer, request.answered_below)
            if isinstance(op, Failure):
                self._fail(request, op)
            elif request.method in _VERSION_AT:
                if _previous_might_not_fit(op, request.peer):
                    self._fail(request, failure(Code.MESSAGE_TOO_LARGE, outcome="not_applied"))
                    continue
                writes.append(request)
                write_commands.append(_write_command(op, request))
            elif isinstance(op, Scan):
                self._metrics.kv_scans_total += 1
                self._start(self._scan(session, request, op))
            elif isinstance(op, Count) and (cursor := self._commands.open_count(session, op, request.peer)) is not None:
                self._metrics.kv_reads_total += 1
                if isinstance(cursor, Failure):
                    self._fail(request, cursor)
                else:
                    self._start(self._count(request, cursor))
            else:
                reads.append(request)
                read_commands.append(Command(op))
        self._metrics.kv_reads_total += len(reads)
        self._metrics.kv_writes_total += len(writes)
        if reads:
            self._commands.submit(session, read_commands, lambda results: self._answer(reads, results, 0))
        if writes:
            _Writes(self, writes).submit(session, write_commands)
        self._metrics.kv_handler_seconds_total += time.perf_counter() - started

    def _fail(self, request: Request, reason: Failure, entries: bytes = b"") -> None:
        self._metrics.kv_failures_total += 1
        request.fail(reason, entries)

    def _answer(self, requests: list[Request], results: list[Result], start: int) -> None:
        """Answer from `start` on, all of one connection, until as much waits to be written as may.

        What is left goes on when there is room again. It holds references to values that are in the store anyway, so
        waiting costs no memory that a peer could choose; if the connection ends, it is dropped with it.
        """
        encode = self._encode
        now = _revision_entry(self._commands.revision)
        for position in range(start, len(requests)):
            request, result = requests[position], results[position]
            peer = request.peer
            if not peer.writable:
                peer.when_writable(lambda at=position: self._answer(requests, results, at))  # type: ignore[misc]
                return
            replayed = b""
            if isinstance(result, Replayed):
                result, replayed = result.result, _REPLAYED
                self._metrics.kv_replayed_total += 1
            if type(result) is tuple:
                version_at = _VERSION_AT.get(request.method)
                version = None if version_at is None else result[version_at]
                entries = (now if version is None else _revision_entry(version)) + replayed
            elif result is DROPPED:
                continue  # answered when it was
            else:
                assert isinstance(result, Failure)
                self._fail(request, result, replayed)
                continue
            if (
                type(result[0]) is list
                and _size(result[0]) > min(peer.max_message, GET_MANY_SIZE_MAX) - ANSWER_OVERHEAD
            ):
                self._fail(request, failure(Code.MESSAGE_TOO_LARGE, outcome="not_applied"))
                continue
            request.respond(encode(result), entries)

    def _forget(self, session: Session, peer: Peer, answered_below: int) -> None:
        """Forget the answers to this connection's changes on streams below `answered_below`: they have been read."""
        tracked: deque[tuple[int, bytes]] | None = peer.attributes.get(_TRACKED)
        if not tracked:
            return
        request_ids = []
        while tracked and tracked[0][0] < answered_below:
            request_ids.append(tracked.popleft()[1])
        if request_ids:
            self._commands.forget(session, request_ids)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._scans.add(task)
        task.add_done_callback(self._scans.discard)

    async def _count(self, request: Request, cursor: Cursor) -> None:
        task = asyncio.current_task()
        assert task is not None
        request.on_cancel = lambda: _stop(task)
        try:
            if request.cancelled:
                raise asyncio.CancelledError
            counted = await count(cursor)
            if isinstance(counted, Failure):
                self._fail(request, counted)
            else:
                request.respond(self._encode((counted,)), _revision_entry(cursor.revision))
        except asyncio.CancelledError:
            self._fail(request, failure(Code.CANCELLED, outcome="not_applied"))
        except Exception:
            log.exception("count_failed", extra={"stream": request.stream})
            self._fail(request, failure(Code.HANDLER_FAILED, outcome="not_applied"))
        finally:
            cursor.close()

    async def _scan(self, session: Session, request: Request, op: Scan) -> None:
        task = asyncio.current_task()
        assert task is not None

        request.on_cancel = stop = lambda: _stop(task)
        cursor = self._commands.open_scan(session, op, on_expired=stop, owner=request.peer)
        if isinstance(cursor, Failure):
            self._fail(request, cursor)
            return
        try:
            if request.cancelled:
                raise asyncio.CancelledError
            while True:
                # A row may be large: it is looked for when it can leave.
                await request.room()
                page = cursor.page(PAGE_SIZE_MAX, PAGE_ROWS_MAX)
                if isinstance(page, Failure):
                    self._fail(request, page)
                    return
                if page.rows:
                    await request.send(self._encode(page.rows))
                if page.done:
                    break
                # A page is a slice of work: the others have their turn between two, wherever the window is wide.
                await asyncio.sleep(0)
            request.respond(self._encode(cursor.result), _revision_entry(cursor.revision))
        except asyncio.CancelledError:
            # The peer cancelled, or went away, or took nothing for too long.
            request.fail(cursor.lost() if cursor.expired else failure(Code.CANCELLED, outcome="not_applied"))
        except ConnectionError:
            pass  # nobody is left to be answered
        except LocalProtocolError as error:
            request.fail(error.failure("not_applied"))  # there is no memory for a row, or the peer takes none as large
        except Exception:
            log.exception("scan_failed", extra={"stream": request.stream})
            request.fail(failure(Code.HANDLER_FAILED, outcome="not_applied"))
        finally:
            cursor.close()


def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()


class _Writes:
    """The writes of one connection and turn, and what becomes of those that nobody waits for any more.

    A write that is cancelled, or whose time is over, before it is with the disk is taken back. Later it has its result,
    which is the answer. All that are cancelled in one turn of the loop are looked for together, at its end.
    """

    __slots__ = ("_looking", "_requests", "_service", "_submission")

    def __init__(self, service: KvService, requests: list[Request]) -> None:
        self._service = service
        self._requests = requests
        self._looking = False
        self._submission: Submission | None = None

    def submit(self, session: Session, commands: list[Command]) -> None:
        on_cancel = self._on_cancel
        for request in self._requests:
            request.on_cancel = on_cancel
        submission = self._service._commands.submit(session, commands, self._done)
        if submission.waiting:
            self._submission = submission

    def _done(self, results: list[Result]) -> None:
        self._submission = None
        # Each request refers to this object: left as they are, they would be a circle, and work for the collector.
        requests, self._requests = self._requests, []
        self._service._answer(requests, results, 0)

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


def _size(entries: list[Entry | None]) -> int:
    """An upper bound of the bytes of get_many's answer. Asked before it is encoded: what a few bytes of keys ask for
    can be more than there is memory."""
    return sum(len(entry[0]) + ENTRY_OVERHEAD for entry in entries if entry is not None) + len(entries)


def _write_command(op: Any, request: Request) -> Command:
    request_id, peer = request.request_id, request.peer
    if request_id is None or "idempotency" not in peer.capabilities:
        return Command(op)
    digest = _DIGESTS[request.method].copy()
    digest.update(request.payload)
    if request.resent:
        # Not tracked: bytes of another connection may bring it once more, whatever has been read on this one.
        return Command(op, request_id, digest.digest(), resent=True)
    tracked = peer.attributes.get(_TRACKED)
    if tracked is None:
        tracked = peer.attributes[_TRACKED] = deque(maxlen=ANSWERS_TRACKED_MAX)
    tracked.append((request.stream, request_id))
    return Command(op, request_id, digest.digest())


def _previous_might_not_fit(op: Operation, peer: Peer) -> bool:
    """Whether the answer to a change could be larger than the peer takes: it would be applied, and not be answered."""
    if not isinstance(op, (Set, Delete)) or not op.return_previous:
        return False
    return peer.max_message < VALUE_SIZE_MAX + ANSWER_OVERHEAD


def _revision_entry(revision: int) -> bytes:
    return _REVISION_HEAD + revision.to_bytes(8, "big")
