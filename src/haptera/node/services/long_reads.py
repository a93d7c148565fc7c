"""The long reads of the kv service: scans, counts of many keys, large get_many, histories, and reads of the past.

The rows of a scan with ``keys_only`` have the same four places, with nil for the value.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final, TypeGuard, cast

from haptera.errors import Code, Failure, LocalProtocolError, failure
from haptera.node.scans import Cursor, page_steps
from haptera.node.services.hidden_times import rows_without_times, without_times
from haptera.node.services.kv_terms import Terms
from haptera.node.services.large_requests import while_wanted, writable
from haptera.node.services.msgpack_slices import encode_steps
from haptera.node.services.replies import GET_MANY_SIZE_MAX, revision_entry
from haptera.state import operations

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from haptera.node.commands import Commands, Submitter
    from haptera.node.metrics import Metrics
    from haptera.node.services.recorded_commands import RecordedCommands
    from haptera.node.services.replies import Replies
    from haptera.node.services.tasks import Tasks
    from haptera.peer import Request
    from haptera.state import Operation, Steps

Scanning = operations.OpenScan | operations.AsOf
Counting = operations.Count | operations.AsOf
Reading = operations.GetMany | operations.OpenHistory | operations.AsOf

#: The operations that may take long. A get is known by this at once, which spares it a question for each kind.
_LONG: Final = frozenset({operations.OpenScan, operations.Count, operations.OpenHistory, operations.AsOf})

#: Bytes of one page of a scan, unless one row is larger: one turn of the connection, a quarter of a default window.
PAGE_SIZE_MAX: Final = 64 * 1024

#: Rows of one page, so that a page of small rows too is taken in a fraction of a millisecond.
PAGE_ROWS_MAX: Final = 1024

#: The same while a write waits (`haptera.node.slice_queue.Turns.hurried`). A page has costs of its own: a scan of small
#: rows takes the node a third more time for each row then.
HURRIED_ROWS_MAX: Final = 256


def is_get_many(op: Operation) -> TypeGuard[Reading]:
    """Whether an operation is a get_many, of the present or the past."""
    return isinstance(operations.read_of(op), operations.GetMany)


class LongReads:
    """Answers reads that look at any number of keys, each in a task or in turns."""

    def __init__(
        self,
        commands: Commands,
        metrics: Metrics,
        replies: Replies,
        tasks: Tasks,
        recorded: RecordedCommands | None = None,
    ) -> None:
        self._commands = commands
        self._metrics = metrics
        self._replies = replies
        self._tasks = tasks
        self._recorded = recorded

    def takes(self, submitter: Submitter, request: Request, op: Operation) -> bool:
        """Whether a read is a scan, a history, a count of any number of keys, or of the past; it is on its way then."""
        if type(op) not in _LONG:
            return False
        kind = type(operations.read_of(op))
        work: Callable[[], Awaitable[None]]
        if kind is operations.OpenScan:
            self._metrics.kv_scans_total += 1
            work = partial(self._scan, submitter, request, cast("Scanning", op))
        elif isinstance(op, operations.Count) and self._commands.counts_at_once(submitter, op):
            return False
        else:
            self._metrics.kv_reads_total += 1
            if kind is operations.Count:
                work = partial(self._count, submitter, request, cast("Counting", op))
            else:
                work = partial(self.read, submitter, request, cast("Reading", op))
        self._tasks.begin(request.peer, lambda: self.followed(request, op, work))
        return True

    async def followed(self, request: Request, op: Operation, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work of a read, and have it recorded where that is asked for."""
        await (work() if self._recorded is None else self._recorded.follow(request, op, work))

    async def read(self, submitter: Submitter, request: Request, op: Reading) -> None:
        """Answer a read that is made in slices when there is room for it: a few bytes may ask for many."""
        try:
            await writable(request)
            steps = self._read_steps(submitter, request, op)
            answer = await self._commands.turns.run(request.peer, while_wanted(request, steps))
        except Exception as error:
            self._replies.fail_for(request, error, "read_failed")
            return
        if isinstance(answer, tuple):
            payload, revision = answer
            request.respond(payload, revision_entry(revision))
        else:
            self._replies.fail(request, answer or failure(Code.CANCELLED, outcome="not_applied"))

    def _read_steps(self, submitter: Submitter, request: Request, op: Reading) -> Steps[tuple[bytes, int] | Failure]:
        found = yield from self._commands.read_steps(submitter, op, min(request.peer.max_message, GET_MANY_SIZE_MAX))
        if isinstance(found, Failure):
            return found
        result, revision = found
        if isinstance(op, operations.OpenHistory):
            return self._replies.encode(result), revision
        if Terms.of(request.peer).hides_times:
            result = without_times(result)
        return (yield from encode_steps(result)), revision

    async def _count(self, submitter: Submitter, request: Request, op: Counting) -> None:
        task = asyncio.current_task()
        assert task is not None
        request.on_cancel = lambda: self._tasks.stop(request.peer, task)
        if request.cancelled:  # before this began
            self._replies.fail(request, failure(Code.CANCELLED, outcome="not_applied"))
            return
        try:
            counted = await self._commands.count(submitter, op, request.peer)
            if isinstance(counted, Failure):
                self._replies.fail(request, counted)
            else:
                self._replies.respond(request, *counted)
        except asyncio.CancelledError:
            self._replies.fail(request, failure(Code.CANCELLED, outcome="not_applied"))
        except Exception as error:
            self._replies.fail_for(request, error, "count_failed")

    async def _scan(self, submitter: Submitter, request: Request, op: Scanning) -> None:
        task = asyncio.current_task()
        assert task is not None

        request.on_cancel = stop = lambda: self._tasks.stop(request.peer, task)
        if request.cancelled:  # before this began
            request.fail(failure(Code.CANCELLED, outcome="not_applied"))
            return
        cursor: Cursor | Failure | None = None
        turns = self._commands.turns
        try:
            cursor = await self._commands.open_scan(submitter, op, stop, request.peer)
            if isinstance(cursor, Failure):
                self._replies.fail(request, cursor)
                return
            while True:
                # A row may be large: it is looked for when it can leave.
                await request.room()
                rows_max = HURRIED_ROWS_MAX if turns.hurried() else PAGE_ROWS_MAX
                page = await turns.run(request.peer, page_steps(cursor, PAGE_SIZE_MAX, rows_max))
                if isinstance(page, Failure):
                    self._replies.fail(request, page)
                    return
                if page.rows:
                    rows = rows_without_times(page.rows) if Terms.of(request.peer).hides_times else page.rows
                    await request.send(self._replies.encode(rows))
                if page.done:
                    break
            self._replies.respond(request, cursor.result, cursor.revision)
        except asyncio.CancelledError:
            # The peer cancelled, or went away, or took nothing for too long.
            if isinstance(cursor, Cursor) and cursor.expired:
                request.fail(cursor.lost())
            else:
                request.fail(failure(Code.CANCELLED, outcome="not_applied"))
        except ConnectionError:
            pass  # no one is left to be answered
        except LocalProtocolError as error:
            request.fail(error.failure("not_applied"))  # there is no memory for a row, or the peer takes none as large
        except Exception as error:
            self._replies.fail_for(request, error, "scan_failed")
        finally:
            if isinstance(cursor, Cursor):
                cursor.close()
