"""The replicated state machine: (state, command, entry time) -> (result).

Deterministic: no clock, no randomness, no I/O. Each process that applies the same entries, a node at work, a node
that replays its log or a replica, has the same state after each of them. Time enters only as the entries' time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Final

import msgspec

from haptera.errors import Code, Failure, failure
from haptera.state import limits
from haptera.state.access import Access
from haptera.state.access_commands import AccessCommands
from haptera.state.access_operations import AccessChange
from haptera.state.access_reads import AccessReads
from haptera.state.entries import KEY_WORK
from haptera.state.event_history import EventBounds
from haptera.state.get_many import get_many_steps, get_steps
from haptera.state.invariants import require
from haptera.state.key_history import history_steps
from haptera.state.kv import Kv
from haptera.state.lease_commands import LeaseCommands
from haptera.state.memory_growth import Growth
from haptera.state.node_commands import NodeCommands
from haptera.state.node_record import NodeRecord
from haptera.state.operation_sets import FENCED, OPERATIONS, WRITES, list_fields, method_of
from haptera.state.operations import (
    AsOf,
    Forget,
    Get,
    GetMany,
    OpenHistory,
    OpenScan,
    Operation,
    Read,
    RevokeLease,
    Transact,
)
from haptera.state.quota_growth import QuotaGrowth
from haptera.state.requests import Requests
from haptera.state.scan_cursor import ScanCursor
from haptera.state.sliced_work import finish
from haptera.state.transacts import Transacts, parts_of
from haptera.state.views import past_view, present_view

if TYPE_CHECKING:
    from haptera.state.command_encoding import Logged
    from haptera.state.glob import Glob
    from haptera.state.lease_commands import ListLeasesOf
    from haptera.state.leases import Leases
    from haptera.state.operations import ListLeases, SetMany, Write
    from haptera.state.results import Result
    from haptera.state.sliced_work import Steps


#: Units of work of a command of one key: to apply it, and to remember its answer.
_COMMAND_WORK: Final = 16
#: Units of work of a compare or an operation of a transact.
_PART_WORK: Final = 4


class _Reached(Exception):
    """A replay has come to the revision at which it is to end."""


class StateMachine:
    """The parts of the replicated state, and the place in the log up to which it was applied.

    ``bounds`` are those of the event history. ``index`` is the index of the last entry applied (0 before the first) and
    ``time_ms`` the highest entry time. ``kv``, ``leases``, ``requests``, ``access`` and ``node`` are the parts.
    ``abandoned`` is why the state is not to be used any more, or None.
    """

    __slots__ = (
        "_access_commands",
        "_growth",
        "_lease_commands",
        "_many",
        "_node_commands",
        "_quota_growth",
        "_reads",
        "_transacts",
        "_writes",
        "abandoned",
        "access",
        "index",
        "kv",
        "leases",
        "node",
        "requests",
        "time_ms",
    )

    def __init__(self, bounds: EventBounds | None = None) -> None:
        self.index: int = 0
        self.time_ms: int = 0
        self.abandoned: Failure | None = None
        self.kv: Kv = Kv(bounds or EventBounds())
        self.leases: Leases = self.kv.leases
        self.requests: Requests = Requests()
        self.access: Access = Access()
        self.node: NodeRecord = NodeRecord()
        self._lease_commands = LeaseCommands(self.kv)
        self._access_commands = AccessCommands(self.access, self.kv)
        self._node_commands = NodeCommands(self.node, self.kv)
        self._growth = Growth()
        reads = [command for command in OPERATIONS if issubclass(command, Read)]
        self._reads: dict[type, Callable[[Any], Result]] = self._methods(
            reads, AccessReads(self.access, self.kv.quotas)
        )
        self._many: dict[type, Callable[[Any], Steps[Result]]] = self._methods(
            [command for command in WRITES if command.in_slices], self._access_commands
        )
        self._writes: dict[type, Callable[..., Any]] = self._methods(
            [command for command in WRITES if not command.in_slices and command is not Transact], self._access_commands
        )
        of_access = [command for command in self._writes if issubclass(command, AccessChange)]
        self._writes |= dict.fromkeys(of_access, self._access_commands.change)
        self._transacts = Transacts(self.kv)
        self._quota_growth = QuotaGrowth(self.kv, self._transacts)
        self.kv.quotas.payer = self.access.payer
        self._writes[Transact] = self._transacts.transact
        self._writes[Forget] = self._forget

    def _methods(self, commands: Iterable[type[Operation]], access: object) -> dict[type, Callable[..., Any]]:
        """Return the method of its part for each command; those of ``requests`` have none."""
        parts: dict[str, object] = {
            "kv": self.kv,
            "leases": self._lease_commands,
            "access": access,
            "node": self._node_commands,
        }
        named = {command: method_of(command) for command in commands}
        return {command: getattr(parts[part], name) for command, (part, name) in named.items() if part in parts}

    @property
    def revision(self) -> int:
        """The store's revision: that of its newest change, or behind its newest gap (section 7)."""
        return self.kv.revision

    def apply(self, index: int, time_ms: int, commands: Iterable[Logged]) -> list[Result]:
        """Apply one entry of the log and return a result for each of its commands, in order.

        ``index`` is the entry's index and must follow the last one (``ValueError``). ``time_ms`` is its Unix time in
        milliseconds; one that lies before an earlier entry's is read as that one's. The commands must have passed
        `haptera.state.validate`, before they were logged. If it raises, the entry may be applied in part: `abandon` the
        machine, because only a new one that applies the log from its beginning has a whole state.
        """
        return finish(self.steps(index, time_ms, commands))

    def apply_until(self, revision: int, index: int, time_ms: int, commands: Iterable[Logged]) -> None:
        """As `apply`, up to the change that makes a revision, which is above the present one.

        A command may make two: dead keys, in whose place it puts others, go at the revision before its own.
        """

        def stop() -> None:
            if self.revision == revision:
                raise _Reached

        kv = self.kv
        told, kv.buried = kv.buried, stop
        try:
            self.apply(index, time_ms, takewhile(lambda _: self.revision < revision, commands))
        except _Reached:
            pass  # between two changes: the state is whole
        finally:
            kv.buried = told

    def steps(self, index: int, time_ms: int, commands: Iterable[Logged]) -> Steps[list[Result]]:
        """As `apply`, in slices. Between two of them each command is seen by readers whole, or not at all.

        No other entry may be applied before the last slice. While a large change is applied in part (``changing``) the
        state can be read by key, neither counted nor scanned again.
        """
        if self.abandoned is not None:
            raise ValueError(f"entry {index} is for a state that was abandoned")
        if index != self.index + 1:
            raise ValueError(f"entry {index} does not follow entry {self.index}")
        self.index = index
        kv, requests = self.kv, self.requests
        before = kv.earlier_ms = self.time_ms
        self.time_ms = kv.now_ms = max(before, time_ms)
        requests.advance(self.time_ms - before)
        events = kv.events
        events.time_ms = self.time_ms
        results: list[Result] = []
        writes, judge, remember, node = self._writes, requests.judge, requests.remember, self.node
        accounts = kv.quotas.accounts
        work, work_max = 0, limits.SLICE_WORK_MAX
        for command in commands:
            work += _COMMAND_WORK
            if work >= work_max:
                yield work
                work = 0
            op, user, request_id = command.op, command.user, command.request_id
            if request_id is not None:
                answered = judge(user, request_id, command.digest)
                if answered is not None:
                    results.append(answered)
                    continue
            events.user = user
            if accounts:
                kv.quotas.begin(user)
            kind = type(op)
            fence = op.fence if kind in FENCED else None  # type: ignore[attr-defined]  # by the members of FENCED
            if node.maintenance is not None and (refused := node.refusal(op)) is not None:
                result: Any = refused
            elif fence is not None and (refused := self.leases.fenced(fence)) is not None:
                result = refused
            elif accounts and (over := (yield from self._quota_growth.refusal_steps(op))) is not None:
                result = over
            elif (write := writes.get(kind)) is not None:
                result = write(op)
                if kind is Transact:
                    work += _PART_WORK * parts_of(op)  # type: ignore[arg-type]  # by its kind
            else:
                result = yield from self._many[kind](op)
                work += min(_keys_of(op, result) * KEY_WORK, work_max)
            if request_id is not None and (type(result) is tuple or (command.resent and isinstance(result, Failure))):
                remember(user, request_id, command.digest, result, kv.revision)
            results.append(result)
        kv.held.sweep()
        return results

    def known(self, command: Logged) -> Result | None:
        """The answer to a command now if it changes nothing; None for one that is to be logged.

        Its answer is remembered, its id is another's, its user's table is full, or it changes nothing in the store. The
        caller makes sure that no entry is on its way that could make another answer right.
        """
        if command.request_id is not None:
            answered = self.requests.judge(command.user, command.request_id, command.digest)
            if answered is not None:
                return answered
        if command.resent:
            return None  # its answer, of any kind, is remembered for its other copy
        op = command.op
        if self.node.maintenance is not None and (refused := self.node.refusal(op)) is not None:
            return refused
        if self.kv.expiry.count:
            self.kv.now_ms = self.kv.clock()  # no entry that comes has an earlier time
        fence = op.fence if type(op) in FENCED else None  # type: ignore[attr-defined]  # by the members of FENCED
        if fence is not None and (refused := self.leases.fenced(fence)) is not None:
            return refused
        if isinstance(op, RevokeLease):
            return self._lease_commands.unchanged(op)
        quotas = self.kv.quotas
        if quotas.accounts:
            quotas.begin(command.user)
        if isinstance(op, AccessChange):
            self.kv.events.user = command.user  # no entry is applied meanwhile: the next one has its own
            if op.in_slices:
                return self._access_commands.unchanged(op)
        change = self._writes.get(type(op))
        known: Result | None = self.kv.unchanged(op) if change is None else change(op, rehearsed=True)
        return self._quota_growth.refusal(op) if known is None and quotas.accounts else known

    def known_in_maintenance(self, command: Logged) -> Result | None:
        """As `known` for a command that maintenance refuses, and None for any other, with all on its way. The end of
        the maintenance may be; it was not answered either, so the command may be judged before it.
        """
        refused = None if command.resent else self.node.refusal(command.op)
        if refused is None or command.request_id is None:
            return refused
        return self.requests.judge(command.user, command.request_id, command.digest) or refused

    def growth(self, op: Write) -> int:
        """Bytes of memory that a write adds to the present entries, at most; 0 or less where it adds nothing.
        A long set_many is for `growth_steps`.
        """
        return self._transacts.growth(op) if isinstance(op, Transact) else self._growth.of(op, self.kv)

    def growth_steps(self, op: SetMany) -> Steps[int]:
        """As `growth`, in slices."""
        return self._growth.steps(op, self.kv)

    def _forget(self, op: Forget, *, rehearsed: bool = False) -> Result | None:
        return None if rehearsed else (self.requests.forget(op.user, op.request_ids),)

    @property
    def size(self) -> int:
        """Bytes of memory that the entries, the leases and the accounts of quotas take."""
        return self.kv.size + self.leases.size + self.kv.quotas.size

    def answer_with(self, command: type[Read], answer: Callable[[Any], Result]) -> None:
        """Have the reads of a kind answered by a function: by one who knows more than the state."""
        self._reads[command] = answer

    def list_leases(self, op: ListLeases | ListLeasesOf, remaining_ms: Callable[[int], int | None]) -> Result:
        """Some leases, each with the time that is left of it: the result array of `leases`."""
        return self._lease_commands.listed(op, remaining_ms)

    def read(self, op: Read) -> Result:
        """The result of a read of the present state: an array of section 7, or a `Failure`."""
        return self._reads[type(op)](op)

    @property
    def changing(self) -> bool:
        """Whether a large change is applied in part."""
        return self.kv.changing

    @property
    def burdened(self) -> bool:
        """Whether something that no reader needs any more waits to be freed."""
        return self.kv.held.burdened

    def sweep_steps(self) -> Steps[None]:
        """Free all that no reader needs any more."""
        held = self.kv.held
        while held.burdened:
            held.sweep()
            yield limits.SLICE_WORK_MAX // 2

    def abandon(self, reason: Failure) -> None:
        """Apply no more entries, and answer every read and new scan with `reason`."""
        self.abandoned = reason
        self.kv.settle()  # reads that wait for the end of the change are answered with the reason
        self._reads = dict.fromkeys(self._reads, lambda _: reason)  # a read pays nothing for it before

    def read_steps(self, op: GetMany | OpenHistory | AsOf, limit: int) -> Steps[tuple[tuple[Any, ...], int] | Failure]:
        """A read that takes several slices: its result array, of ``limit`` bytes at most, and the revision that it is
        of. A count or a scan of the past is for `open_scan`.
        """
        found = self.abandoned or (yield from self._read_steps(op, limit))
        return self.abandoned or found

    def _read_steps(self, op: GetMany | OpenHistory | AsOf, limit: int) -> Steps[tuple[tuple[Any, ...], int] | Failure]:
        if isinstance(op, OpenHistory):
            return (yield from history_steps(self.kv, op))
        read, at = (op.read, op) if isinstance(op, AsOf) else (op, None)
        if isinstance(read, Get):
            assert at is not None
            return (yield from get_steps(self.kv, read, at))
        assert isinstance(read, GetMany)
        found = yield from get_many_steps(self.kv, read, limit, at)
        return found if isinstance(found, Failure) else ((found[0],), found[1])

    def open_scan(self, op: OpenScan, glob: Glob | None = None, at: AsOf | None = None) -> ScanCursor | Failure:
        """A scan of the present revision, or of the one that ``at`` names; it must be closed. 3007 when
        `limits.CURSORS_MAX` are open, 4009 for a revision that is not kept.

        ``glob`` is the scan's own, if it is compiled already.
        """
        if self.abandoned is not None:
            return self.abandoned
        if self.kv.cursors >= limits.CURSORS_MAX:
            return failure(Code.TOO_MANY_REQUESTS, {"open_scans_max": limits.CURSORS_MAX}, outcome="not_applied")
        view = present_view(self.kv) if at is None else past_view(self.kv, at)
        return view if isinstance(view, Failure) else ScanCursor(self.kv, op, view, glob)

    @property
    def expires_next_ms(self) -> int:
        """The time from which on `dead_steps` may find keys; `NEVER` if there is none that expires."""
        expiry = self.kv.expiry
        return expiry.reached if expiry.due else expiry.next_ms

    def dead_steps(self, now_ms: int, limit: int) -> Steps[list[str]]:
        """At most ``limit`` of the keys that are dead at a time and still there, found in slices."""
        expiry = self.kv.expiry
        yield from expiry.advance_steps(now_ms)
        return expiry.first_due(limit)

    def read_by(self, clock: Callable[[], int]) -> None:
        """Have reads judge by a clock whether a key is dead: it gives Unix milliseconds, and is never later than the
        time of an entry that is still to be applied.
        """
        self.kv.clock = clock

    def counts_at_once(self) -> bool:
        """Whether the keys of a range can be counted now, and in a short time."""
        return not self.kv.changing and self.kv.counts_fast()

    def build_index(self) -> None:
        """Sort the keys now (half a second for a million), not in the first scan or count that needs their order."""
        self.kv.build_index()

    def keep_tracked(self) -> None:
        """Prepare the large tables for ``gc.freeze``: objects that it is to keep must be followed when it is called."""
        self.kv.keep_tracked()

    def digest(self) -> bytes:
        """32 bytes that are equal for machines that applied the same entries. Takes time for every key."""
        parts = [self.index, self.time_ms, self.kv.digest(), self.leases.digest(), self.requests.digest()]
        if self.kv.gaps.found:
            parts.append(self.kv.gaps.digest())
        if self.access.revision:
            parts.append(self.access.digest())
        if not self.node.empty:
            parts.append(self.node.digest())
        if self.kv.quotas.accounts:
            parts.append(self.kv.quotas.digest())
        return hashlib.sha256(msgspec.msgpack.encode(parts)).digest()

    def check(self) -> None:
        """Raise ``AssertionError`` with the invariant that does not hold, if one does not. Takes time for every key."""
        self.kv.check()
        self.requests.check()
        self.access.check()
        require(self.kv.quotas.accounts.keys() <= self.access.users.keys(), "each quota is that of a user")
        self.node.check(self.time_ms)


_LISTS: Final = {command: name for command, (name, _) in list_fields(WRITES).items()}


def _keys_of(op: Any, result: Result) -> int:
    """Return how many keys a change of any number of them has looked at."""
    field = _LISTS.get(type(op))
    if field is not None:
        return len(getattr(op, field))
    count: int = result[0] if type(result) is tuple else 0
    return count
