"""The replies of the kv service: results to RESPONSE and ERROR, a batch at a time.

Every RESPONSE says which revision of the store it saw (tag 0x0B): for a write that changed something, the revision
that it made; else the revision that was applied when it was read or judged. ERROR does not carry it.
"""

from __future__ import annotations

import logging
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from haptera.errors import Code, Failure, ShuttingDown, failure
from haptera.key_rules import size_refusal
from haptera.node.services.hidden_times import without_times
from haptera.node.services.kv_methods import METHODS
from haptera.node.services.kv_terms import Terms
from haptera.node.services.large_requests import units_of_values, while_wanted
from haptera.node.services.msgpack_slices import encode_steps
from haptera.node.write_batch import DROPPED
from haptera.peer import respond_all
from haptera.state import ANSWER_OVERHEAD, COMMAND_SIZE_MAX, ENTRY_OVERHEAD, Replayed
from haptera.wire import Tag

if TYPE_CHECKING:
    from collections.abc import Callable

    from haptera.node.commands import Commands
    from haptera.node.metrics import Metrics
    from haptera.peer import Request
    from haptera.state import Result, Steps, StoredEntry

_logger = logging.getLogger(__name__)

#: Bytes of the largest answer to get_many, even where the peer takes more: as many as of a command. A few bytes of keys
#: can ask for as much as the store holds, once for each.
GET_MANY_SIZE_MAX: Final = COMMAND_SIZE_MAX

#: Bytes of answers that are given together: little enough that an answer more than the connection has room for is no
#: great matter.
TOGETHER_SIZE: Final = 64 * 1024

#: The first field of the results of get and get_many. Of other results the last field may have values.
_WITH_VALUES: Final = (bytes, list)

#: The place in a method's result of the revision that its change has made.
_VERSIONS_AT: Final = {name: method.version_at for name, method in METHODS.items()}

_DENIED: Final = int(Code.PERMISSION_DENIED)

_REPLAYED: Final = bytes((Tag.REPLAYED, 0))
_REVISION_HEAD: Final = bytes((Tag.REVISION, 8))


class Replies:
    """Answers requests, and counts the failures."""

    def __init__(
        self,
        commands: Commands,
        metrics: Metrics,
        record_denied: Callable[[Request, Failure], None] | None = None,
    ) -> None:
        self._commands = commands
        self._metrics = metrics
        self._record_denied = record_denied
        #: The long reads that are followed, and the failure of each that has failed (`RecordedCommands.follow`).
        self.followed: dict[Request, Failure | None] = {}
        #: Batches whose next answer is large, and the place of that. The requests of connections bound them.
        self._large: deque[tuple[list[Request], list[Result], int, bytes]] = deque()
        #: Encodes a result, or the rows of a page.
        self.encode: Final = msgspec.msgpack.Encoder().encode

    def fail(self, request: Request, reason: Failure, entries: bytes = b"") -> None:
        """Answer with a failure."""
        self._metrics.kv_failures_total += 1
        if reason.code == _DENIED and self._record_denied is not None:
            self._record_denied(request, reason)
        if self.followed and request in self.followed:
            self.followed[request] = reason
        request.fail(reason, entries)

    def fail_for(self, request: Request, error: Exception, event: str) -> None:
        """Answer a request whose work has raised an error: that the node stops, or a defect, which goes to the log as
        ``event``.
        """
        if isinstance(error, ShuttingDown):
            self.fail(request, failure(Code.SHUTTING_DOWN, outcome="not_applied"))
            return
        _logger.error(event, exc_info=error, extra={"stream": request.stream, "method": request.method})
        self.fail(request, failure(Code.HANDLER_FAILED, outcome="not_applied"))

    def respond(self, request: Request, result: Any, revision: int) -> None:
        """Answer with a result that is of a revision."""
        request.respond(self.encode(result), revision_entry(revision))

    def answer(
        self,
        requests: list[Request],
        results: list[Result],
        start: int = 0,
        now: bytes | None = None,
    ) -> None:
        """Answer from `start` on, all of one connection, until as much waits to be written as may.

        The rest goes on when there is room again. It holds references to values that are in the store anyway, so
        waiting costs no memory that a peer could choose; if the connection ends, it is dropped with it. `now` is the
        revision that the results are of. Values too large for this turn of the loop are encoded in later ones.
        """
        encode, peer = self.encode, requests[0].peer
        hides = Terms.of(peer).hides_times
        answers: list[tuple[Request, bytes, bytes]] = []
        room = 0
        for position in range(start, len(requests)):
            if room <= 0:
                if answers:
                    respond_all(answers)
                    answers = []
                if not peer.writable:
                    now = now or revision_entry(self._commands.revision)
                    peer.when_writable(partial(self.answer, requests, results, position, now))
                    return
                room = TOGETHER_SIZE
            request, result, replayed = requests[position], results[position], b""
            if type(result) is not tuple:
                if isinstance(result, Replayed):
                    result, replayed = result.result, _REPLAYED
                    self._metrics.kv_replayed_total += 1
                if isinstance(result, Failure):
                    if result is not DROPPED:  # it was answered when it was dropped
                        self.fail(request, result, replayed)
                    continue
            if hides:
                result = results[position] = without_times(result)
            if type(result[0]) in _WITH_VALUES or type(result[-1]) is tuple:
                if type(result[0]) is list and (refused := too_many_bytes(result[0], peer.max_message)) is not None:
                    self.fail(request, refused)
                    continue
                turns, units = self._commands.turns, units_of_values(result)
                if units and not turns.admits(units):
                    now = now or revision_entry(self._commands.revision)
                    self._large.append((requests, results, position, now))
                    turns.start_once(self, self._large_steps)
                    break
            payload = encode(result)
            room -= len(payload)
            version_at = _VERSIONS_AT[request.method]
            version = None if version_at is None else result[version_at]
            if version is not None:
                entries = _REVISION_HEAD + version.to_bytes(8, "big")
            else:
                entries = now = now or revision_entry(self._commands.revision)
            answers.append((request, payload, entries + replayed if replayed else entries))
        respond_all(answers)

    def _large_steps(self) -> Steps[None]:
        """Encode large answers one after the other, because no budget counts one that is not whole yet.

        The rest of a batch stands behind the large answers of other batches.
        """
        while self._large:
            requests, results, position, now = self._large.popleft()
            request, result = requests[position], results[position]
            assert isinstance(result, tuple)
            try:
                payload = yield from while_wanted(request, encode_steps(result))
            except MemoryError as error:
                self.fail_for(request, error, "request_failed")
            else:
                if payload is None:
                    self.fail(request, failure(Code.CANCELLED, outcome="not_applied"))
                else:
                    version_at = _VERSIONS_AT[request.method]
                    version = None if version_at is None else result[version_at]
                    request.respond(payload, now if version is None else revision_entry(version))
            self.answer(requests, results, position + 1, now)


def too_many_bytes(entries: list[StoredEntry | None], message_max: int = GET_MANY_SIZE_MAX) -> Failure | None:
    """Why get_many does not answer with these entries (3004), or None: they are too large for one message.

    Asked before it is encoded, because a few bytes of keys can ask for more bytes than there is memory.
    """
    limit = min(message_max, GET_MANY_SIZE_MAX)
    size = sum(len(entry[0]) + ENTRY_OVERHEAD for entry in entries if entry is not None) + len(entries)
    return None if size <= limit - ANSWER_OVERHEAD else size_refusal(limit)


def revision_entry(revision: int) -> bytes:
    """The entry of a RESPONSE's metadata that says which revision it saw."""
    return _REVISION_HEAD + revision.to_bytes(8, "big")
