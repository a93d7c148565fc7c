"""The node behind a listener of a dialect: what all its callers share."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple

from haptera.errors import Code, Failure, failure
from haptera.node.audit.command_events import command_event, denied_event
from haptera.node.services.kv_methods import METHODS, SERVICE
from haptera.state import OPERATIONS, Replayed, Write, method_of, operations

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from haptera.node.audit.audit import Audit
    from haptera.node.audit.event import AuditCaller
    from haptera.node.authenticator import NodeAuthenticator
    from haptera.node.commands import Commands, Envelope, Submitter
    from haptera.node.frontend.facts import Facts
    from haptera.node.metrics import Metrics
    from haptera.node.node import Node
    from haptera.node.request_rates import RequestRates, TokenBucket
    from haptera.node.watches import Watches
    from haptera.state import Operation, Read, Result

_DENIED: Final = int(Code.PERMISSION_DENIED)

#: The name of the method that each command has in the service of the store, under which it is counted and recorded.
_NAMES: Final = {kind: name for kind in OPERATIONS for _, name in [method_of(kind)] if name in METHODS}
_GET: Final = _NAMES[operations.Get]


#: The kinds of results that are looked at one by one.
_TOLD: Final = frozenset({Failure, Replayed})


class SubmittedBatch(NamedTuple):
    """A batch of commands that was submitted: by whom, and when (`time.perf_counter`)."""

    caller: AuditCaller
    commands: Sequence[Envelope]
    begun: float


class Gateway:
    """Counts, admits and records the commands of a node's dialects.

    ``authenticator`` knows the users; it is None where callers need no proof.
    """

    def __init__(self, node: Node, authenticator: NodeAuthenticator | None, rates: RequestRates, facts: Facts) -> None:
        self.commands: Commands = node.commands
        self.watches: Watches = node.watches
        self.metrics: Metrics = node.metrics
        self.authenticator = authenticator
        self.facts = facts
        self._audit: Audit = node.audit
        self._rates = rates if rates.any else None
        #: Whether there are rates: else `admits` need not be asked.
        self.has_rates: bool = rates.any
        self._counts = node.metrics.requests(SERVICE, METHODS)
        data = node.config.audit_data
        self._slow_s = node.config.audit_slow or float("inf")
        self._reads_from_s = 0.0 if data == "all" else self._slow_s
        self._writes_from_s = 0.0 if data != "off" else self._slow_s

    def bucket(self, now: float) -> TokenBucket | None:
        """The rate of one connection; None where it has none."""
        return None if self._rates is None else self._rates.session(now)

    def admits(self, bucket: TokenBucket | None, user: str, count: int, now: float) -> tuple[int, Failure | None]:
        """How many of a batch's commands are admitted by the rates, and the failure of the others (3008)."""
        if self._rates is None:
            return count, None
        admitted, wait_ms = self._rates.admits(bucket, user, count, now)
        if admitted == count:
            return count, None
        self.metrics.requests_rate_limited_total += count - admitted
        return admitted, failure(Code.RATE_LIMITED, {"retry_after_ms": wait_ms}, outcome="not_applied")

    def count(self, op: Operation, number: int = 1) -> None:
        """Count a command, or a number of its kind."""
        kind = type(operations.read_of(op))
        self._counts[_NAMES[kind]] += number
        if isinstance(op, Write):
            self.metrics.kv_writes_total += number
        elif kind is operations.OpenScan:
            self.metrics.kv_scans_total += number
        else:
            self.metrics.kv_reads_total += number

    def read_one(self, caller: AuditCaller, submitter: Submitter, op: Read) -> Result:
        """The result of one read (`Commands.read_one`), counted and recorded."""
        begun = time.perf_counter()
        result = self.commands.read_one(submitter, op)
        self.count(op)
        seconds = time.perf_counter() - begun
        if type(result) is Failure or seconds >= self._reads_from_s:
            self.ended(caller, op, result if type(result) is Failure else None, seconds)
        return result

    def get_each(self, caller: AuditCaller, submitter: Submitter, keys: Sequence[str]) -> list[Result]:
        """The results of a `Get` of each key (`Commands.get_each`), counted and recorded."""
        begun = time.perf_counter()
        results = self.commands.get_each(submitter, keys)
        self._counts[_GET] += len(keys)
        self.metrics.kv_reads_total += len(keys)
        seconds = time.perf_counter() - begun
        records = seconds >= self._reads_from_s
        if records or Failure in map(type, results):
            for key, result in zip(keys, results, strict=True):
                if records or type(result) is Failure:
                    reason = result if type(result) is Failure else None
                    self.ended(caller, operations.Get(key), reason, seconds)
        return results

    def followed(
        self, caller: AuditCaller, commands: Sequence[Envelope], done: Callable[[list[Result]], None]
    ) -> Callable[[list[Result]], None]:
        """Return what is to be called with the results of a batch: it counts and records them, and calls ``done``."""
        kinds = [type(command.op) for command in commands]
        if kinds and kinds.count(kinds[0]) == len(kinds) and kinds[0] is not operations.AsOf:  # as in most batches
            self.count(commands[0].op, len(kinds))
        else:
            for command in commands:
                self.count(command.op)
        batch = SubmittedBatch(caller, commands, time.perf_counter())

        def finished(results: list[Result]) -> None:
            self._finish(batch, results)
            done(results)

        return finished

    def _finish(self, batch: SubmittedBatch, results: Sequence[Result]) -> None:
        seconds = time.perf_counter() - batch.begun
        records = seconds >= self._writes_from_s or seconds >= self._reads_from_s
        if not records and _TOLD.isdisjoint(map(type, results)):
            return  # as in most batches
        for place, result in enumerate(results):
            if type(result) in _TOLD or records:
                found = result.result if isinstance(result, Replayed) else result
                reason = found if isinstance(found, Failure) else None
                self.ended(batch.caller, batch.commands[place].op, reason, seconds)

    def ended(self, caller: AuditCaller, op: Operation, reason: Failure | None, seconds: float | None) -> None:
        """A command has its result: count a failure, and record what is denied, slow or configured to be recorded."""
        method = f"{SERVICE}.{_NAMES[type(operations.read_of(op))]}"
        if reason is not None:
            self.metrics.kv_failures_total += 1
            if reason.code == _DENIED:
                self._audit.record(denied_event(self._audit.clock_ms(), caller, method, reason))
                return
        took = 0.0 if seconds is None else seconds
        if took >= (self._writes_from_s if isinstance(op, Write) else self._reads_from_s):
            slow = took >= self._slow_s
            self._audit.record(command_event(self._audit.clock_ms(), caller, method, op, reason, seconds, slow=slow))
