"""The one way into a node: reads, and writes whose answer is known, are answered, and the others go to the pipeline.

The kv service and the embedded client submit their commands here.

`Commands.submit` takes a list. Reads are answered at once, from applied state; writes are checked, put into the open
batch of the commit pipeline and answered when they are durable and applied. There is no task and no future per command.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from haptera.access_rules import is_user_name
from haptera.errors import Code, Failure
from haptera.node.answer_aging import Aging
from haptera.node.commands.lease_owners import LEASING, LeaseOwners, names_leases, with_given_id
from haptera.node.commands.submitter import ANONYMOUS, RestrictedSubmitter
from haptera.node.commands.visibility import Visibility
from haptera.node.commit import LOGGED_OVERHEAD, CommitPipeline
from haptera.node.scans import count_steps
from haptera.node.write_batch import Submission
from haptera.state import (
    REFUSALS,
    SHORT_GLOB_MAX,
    SIZES_IF_ACCEPTED,
    Appearances,
    Logged,
    Operation,
    Permits,
    Read,
    accepted_size,
    access_operations,
    compile_glob,
    denied,
    glob_steps,
    limits,
    operations,
    refusal_steps,
    shown_with,
    validate,
    validate_steps,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from haptera.node.commands.submitter import Submitter
    from haptera.node.metrics import Metrics
    from haptera.node.scans import Cursor, Scans
    from haptera.node.slice_queue import Turns
    from haptera.state import Glob, Result, StateMachine, Steps

#: Ids of answers that wait to be forgotten. They ride with the next write; only where nothing is written this many make
#: an entry of their own, of 72 KiB.
FORGOTTEN_MAX = 4096


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """A command, and the fields of its request beside it. A scan is not for `Commands.submit`.

    A write that must happen at most once has a ``request_id`` (16 bytes) and the ``digest`` (SHA-256) of its
    service, method and argument; ``resent`` says that it may have come on another connection as well
    (spec/protocol.md 7.1). A command that was checked in slices (`Commands.check_steps`) comes with its ``size``, with
    its ``growth`` where that is asked for, and with the permits by which it was ``judged``.
    """

    op: Operation
    request_id: bytes | None = None
    digest: bytes | None = None
    resent: bool = False
    size: int | None = None
    growth: int | None = None
    judged: Permits | None = None


class Commands:
    """The commands of a node's callers. For the event loop's thread alone. ``turns`` is its queue for long work."""

    def __init__(
        self, machine: StateMachine, pipeline: CommitPipeline, scans: Scans, turns: Turns, metrics: Metrics
    ) -> None:
        self.turns = turns
        self._machine = machine
        self._pipeline = pipeline
        self._scans = scans
        self._metrics = metrics
        self._lease_owners = LeaseOwners(machine)
        self._forgotten: dict[str, list[bytes]] = {}  # by user; bounded by FORGOTTEN_MAX
        self._forgotten_count = 0
        #: Lets remembered answers age while no client writes.
        self.aging: Aging = Aging(lambda: machine.requests.most, lambda: self._log_forget(ANONYMOUS.user, []))

    @property
    def revision(self) -> int:
        """The store's applied revision."""
        return self._machine.revision

    def appearances(self, missing: Mapping[str, int]) -> Appearances:
        """A reader that tells whether keys have come since they were missing, each at a revision. The caller asks for
        the keys themselves too, with the permission that this takes.
        """
        return Appearances(self._machine.kv.events, missing)

    def submitter(self, user: str) -> Submitter:
        """The submitter of the commands of a user or a token, which may do what its grants say."""
        return RestrictedSubmitter(user, self._machine.access, self._now_ms)

    def submit(
        self, submitter: Submitter, commands: Sequence[Envelope], done: Callable[[list[Result]], None]
    ) -> Submission:
        """Do the commands and call ``done(results)`` exactly once, when all of them have a result, in their order.

        A result is the tuple of the operation's result array (spec/protocol.md 7), a `Failure` with its outcome, or a
        `Replayed`. Without a write that was accepted, `done` is called before this returns. A command does not see the
        writes before it in the list. Refused, `not_applied`: 3003, 4006, 4007 (invalid), 2004 (the submitter lacks a
        permission, judged before the store is looked at and before an answer is remembered), 3007 (too much waits for
        the disk), 5001 (the disk failed), 5002 (it is full), 5004 (maintenance), 5005 (the node is stopping), 5007 (the
        memory is used up).

        Returns the submission, which `drop` takes.
        """
        machine_read, sizes_of = self._machine.read, SIZES_IF_ACCEPTED
        submission = Submission(done)
        results = submission.results
        user, permits, refused = submitter.user, submitter.permits(), None
        overhead = LOGGED_OVERHEAD + len(user)
        # The last results wait for these writes, which go to the pipeline together: one call for each would cost more
        # than all that is done for it there.
        writes: list[Logged] = []
        sizes: list[int] = []
        growths: list[int | None] = []
        leasing: dict[int, Operation] | None = None  # by the places of their results
        for command in commands:
            op = command.op
            size: int | Failure | None = command.size
            if size is None and (size := sizes_of[type(op)](op)) is None:
                size = accepted_size(op)
            result: Result
            if permits is not None:
                if (judge := _BY_KEYS.get(type(op))) is not None:
                    refused = judge(op, permits) if command.judged is not permits else None
                elif type(size) is int:
                    op, refused = self._admitted(submitter, permits, command)
                    if names_leases(op):
                        leasing = leasing or {}
                        leasing[len(results)] = command.op
                if refused is not None and type(size) is int:  # else the key of the refusal could be of any kind
                    size = refused
            if isinstance(size, Failure):
                result = size
            elif isinstance(op, Read):
                result = machine_read(op)
            else:
                logged = Logged(op, user, command.request_id, command.digest, command.resent)  # type: ignore[arg-type]
                if writes or (known := self._known(logged)) is None:
                    writes.append(logged)
                    sizes.append(size + overhead)
                    growths.append(command.growth)
                    results.append(_WAITING)
                    continue
                result = known
            if writes:
                self._append(writes, sizes, growths, submission)
                writes, sizes, growths = [], [], []
            results.append(result)
        if writes:
            self._append(writes, sizes, growths, submission)
        if leasing:
            submission.done = done = _with_given_ids(leasing, done)
        if submission.waiting:
            submission.writes = submission.waiting
            submission.begun = time.perf_counter()
        else:
            done(results)
        return submission

    def get_each(self, submitter: Submitter, keys: Sequence[str]) -> list[Result]:
        """The results that `submit` has for a `Get` of each key, without the objects that a list of any commands needs.

        A key that is found needs no further check: the store has no other keys than acceptable ones.
        """
        machine, permits = self._machine, submitter.permits()
        if machine.abandoned is None and (permits is None or all(map(permits.read, keys))):
            found: list[Any] = machine.kv.entries_of(keys)
            if None in found:
                return [self._get(key) if entry is None else entry for key, entry in zip(keys, found, strict=True)]
            return found
        results: list[Result] = []
        self.submit(submitter, [Envelope(operations.Get(key)) for key in keys], results.extend)
        return results

    def read_one(self, submitter: Submitter, op: Read) -> Result:
        """The result that `submit` has for one read."""
        size, permits = accepted_size(op), submitter.permits()
        if isinstance(size, Failure):
            return size
        if permits is not None:
            judge = _BY_KEYS.get(type(op))
            if judge is None:
                results: list[Result] = []
                self.submit(submitter, (Envelope(op),), results.extend)
                return results[0]
            refused = judge(op, permits)
            if refused is not None:
                return refused
        return self._machine.read(op)

    def _get(self, key: str) -> Result:
        """The result of a `Get` that nothing but its own key may refuse."""
        op = operations.Get(key)
        return validate(op) or self._machine.read(op)

    def _admitted(self, submitter: Submitter, permits: Permits, command: Envelope) -> tuple[Operation, Failure | None]:
        """An operation as it is for a submitter with these permits, and why it is refused, if it is."""
        op = command.op
        refused = REFUSALS[type(op)](op, permits) if command.judged is not permits else None
        if refused is not None:
            # Its own password: the log says whether the user may come in.
            set_verifier = access_operations.SetVerifier
            own_password = isinstance(op, set_verifier) and op.user == submitter.user and is_user_name(op.user)
            return op, None if own_password else refused
        if isinstance(op, operations.Count):
            all_seen = permits.sieve(shown_with(op), _prefix_of(op)) is None
            return op, None if all_seen else denied("scan")  # it is for `count`
        if type(op) not in LEASING or permits.has("admin"):
            return op, None
        return self._lease_owners.of_own(op, submitter.user), None

    def _append(
        self, writes: list[Logged], sizes: list[int], growths: list[int | None], submission: Submission
    ) -> None:
        """Hand over the writes that the last results wait for."""
        if self._forgotten:
            self.write_forgotten()  # before the writes: they may need the room
        self._pipeline.append(writes, sizes, growths, submission, len(submission.results) - len(writes))

    def _known(self, logged: Logged) -> Result | None:
        """The answer to a write that needs no entry: nothing is on its way, and it would change nothing.

        The applied state is all that there is then, so that this is the answer in log order (ARCHITECTURE.md, "The life
        of a write"). A full table is judged by the log once in a second all the same, because answers age by entries.
        The refusals of maintenance are known before the writes on their way end.
        """
        machine = self._machine
        if self._pipeline.at_rest and not self._forgotten:
            known = machine.known(logged)
        else:
            known = None if machine.node.maintenance is None else machine.known_in_maintenance(logged)
        if known is None:
            return None
        if isinstance(known, Failure) and known.code == Code.RATE_LIMITED and not self._pipeline.fresh:
            return None
        self._metrics.writes_unlogged_total += 1
        return known

    def _now_ms(self) -> int:
        """The time by which reads judge."""
        return self._machine.kv.clock()

    def check_steps(self, submitter: Submitter, op: Operation) -> Steps[Envelope | Failure]:
        """A command whose check may take long, checked in slices, for `submit`; or why it is refused."""
        size = yield from validate_steps(op)
        if isinstance(size, Failure):
            return size
        permits = submitter.permits()
        if permits is not None and (refused := (yield from refusal_steps(op, permits))) is not None:
            return refused
        return Envelope(op, size=size, growth=(yield from self._pipeline.memory.growth_steps(op)), judged=permits)

    def judge_steps(self, submitter: Submitter, command: Envelope) -> Steps[Envelope | Failure]:
        """A command of `check_steps` again, where the submitter's permits have changed meanwhile."""
        while (permits := submitter.permits()) is not command.judged:
            if permits is not None and (refused := (yield from refusal_steps(command.op, permits))) is not None:
                return refused
            command = msgspec.structs.replace(command, judged=permits)
        return command

    def drop(self, submission: Submission, position: int) -> bool:
        """Take back the write at `position` of the submission, if it is not with the disk yet.

        True: it was not applied and never will be; its place in the results is `haptera.node.write_batch.DROPPED`.
        False: its result is on its way, or was given.
        """
        return submission.results[position] is _WAITING and self._pipeline.drop(submission, position)

    def remembers(self, submitter: Submitter) -> Collection[bytes]:
        """The ids of the submitter's changes whose answers are remembered now."""
        return self._machine.requests.remembered(submitter.user)

    def room_for_answers(self, submitter: Submitter) -> int:
        """The number of answers that may still be remembered for the submitter's user, once the ones that wait to be
        forgotten are gone.
        """
        user = submitter.user
        return (
            limits.ANSWERS_PER_USER_MAX
            - self._machine.requests.count(user)
            + (len(self._forgotten.get(user, ())) if self._forgotten else 0)
        )

    def forget(self, submitter: Submitter, request_ids: Sequence[bytes]) -> None:
        """Have the answers for these ids forgotten, by the entry of the next write.

        It costs no sync of its own, unless `FORGOTTEN_MAX` wait. A crash loses the waiting ids; time forgets them then.
        """
        self._forgotten.setdefault(submitter.user, []).extend(request_ids)
        self._forgotten_count += len(request_ids)
        if self._forgotten_count >= FORGOTTEN_MAX:
            self.write_forgotten()

    def write_forgotten(self) -> None:
        """Log the ids that wait to be forgotten. No caller waits for it."""
        forgotten, self._forgotten, self._forgotten_count = self._forgotten, {}, 0
        for user, request_ids in forgotten.items():
            if self._log_forget(user, request_ids) is not None and len(request_ids) < FORGOTTEN_MAX:
                # Too much waits for the disk: with a later write. More than that only time forgets.
                self._put_back(user, request_ids)

    def _put_back(self, user: str, request_ids: list[bytes]) -> None:
        self._forgotten.setdefault(user, []).extend(request_ids)
        self._forgotten_count += len(request_ids)

    def _log_forget(self, user: str, request_ids: list[bytes]) -> Failure | None:
        """A disk that is full does not have the ids yet: they ride with the next write, as far as there is room."""

        def done(results: list[Result]) -> None:
            full = isinstance(results[0], Failure) and results[0].code == Code.STORAGE_FULL
            if full and request_ids and self._forgotten_count + len(request_ids) < FORGOTTEN_MAX:
                self._put_back(user, request_ids)

        return self._pipeline.append_own(Logged(operations.Forget(user, request_ids), user), done)

    async def open_scan(
        self,
        submitter: Submitter,
        op: operations.OpenScan | operations.AsOf,
        on_expired: Callable[[], None] | None = None,
        owner: object | None = None,
    ) -> Cursor | Failure:
        """Open a scan of the present revision, or of the past; it must be closed. Fails with 2004, 3003, 4006, 4009 or
        3007.

        It shows what the submitter may see by the grants that stand when a page is taken, which fails with 2004 where
        that is nothing any more. A scan from which no page was taken for 60 s has lost its revision: `on_expired` is
        called, and its next page is 4009. `owner`, the connection that it is for, has a share of the scans that may be
        open at once; a scan without an owner may be any of them.
        """
        at, scan = op if isinstance(op, operations.AsOf) else None, operations.read_of(op)
        assert isinstance(scan, operations.OpenScan)
        glob: Glob | None = None
        if scan.glob is not None and len(scan.glob) > SHORT_GLOB_MAX:
            compiled = await self.turns.run(owner, glob_steps(scan.glob))
            if isinstance(compiled, Failure):
                return compiled
            glob, scan = compiled, msgspec.structs.replace(scan, glob=None)
        refused = validate(scan if at is None else msgspec.structs.replace(at, read=scan))
        if refused is not None:
            return refused
        view = Visibility(submitter, scan, glob)
        if (refused := view.refusal()) is not None:
            return refused
        await self._pipeline.settled()
        return self._scans.open(scan, on_expired, owner, glob, at, view)

    def counts_at_once(self, submitter: Submitter, op: operations.Count) -> bool:
        """Whether `submit` answers this count at once; else it is for `count`."""
        return self._machine.counts_at_once() and _is_of_a_range(op) and _counts_all(submitter, op)

    async def count(
        self, submitter: Submitter, op: operations.Count | operations.AsOf, owner: object | None = None
    ) -> tuple[tuple[Any, ...], int] | Failure:
        """A count that `submit` does not answer at once: its result array, and the revision that it is of.

        One that looks at each key is made of the pages of a scan, which is one of the `owner`'s; it fails as
        `open_scan` does.
        """
        if isinstance(op, operations.Count) and _is_of_a_range(op):
            refused = validate(op)
            await self._pipeline.settled()
            if refused is not None or (self._machine.counts_at_once() and _counts_all(submitter, op)):
                result = refused or self._machine.read(op)
                return (result, self._machine.revision) if isinstance(result, tuple) else cast("Failure", result)
        count = operations.read_of(op)
        assert isinstance(count, operations.Count)
        keys = operations.OpenScan(
            prefix=count.prefix, start=count.start, end=count.end, glob=count.glob, keys_only=True
        )
        scan = msgspec.structs.replace(op, read=keys) if isinstance(op, operations.AsOf) else keys
        cursor = await self.open_scan(submitter, scan, owner=owner)
        if isinstance(cursor, Failure):
            return cursor
        try:
            counted = await self.turns.run(owner, count_steps(cursor))
            return counted if isinstance(counted, Failure) else ((counted,), cursor.revision)
        finally:
            cursor.close()

    def read_steps(
        self, submitter: Submitter, op: operations.GetMany | operations.OpenHistory | operations.AsOf, limit: int
    ) -> Steps[tuple[tuple[Any, ...], int] | Failure]:
        """A read that `submit` does not answer at once, in slices: a history, a get_many of many keys, or a get or
        get_many of the past. Its result array, and the revision that it is of. Fails with 2004, 3003, 3004 for an
        answer above `limit`, 4001, 4006 or 4009.
        """
        size = yield from validate_steps(op)
        if isinstance(size, Failure):
            return size
        permits = submitter.permits()
        if permits is not None and (refused := (yield from refusal_steps(op, permits))) is not None:
            return refused
        return (yield from self._machine.read_steps(op, limit))


def _with_given_ids(
    leasing: dict[int, Operation], done: Callable[[list[Result]], None]
) -> Callable[[list[Result]], None]:
    """Hand on results in which failures name leases as the users of these operations did."""

    def named(results: list[Result]) -> None:
        for position, op in leasing.items():
            results[position] = with_given_id(results[position], op)
        done(results)

    return named


def _counts_all(submitter: Submitter, op: operations.Count) -> bool:
    """Whether the submitter may see all keys of a count's range."""
    permits = submitter.permits()
    return permits is None or permits.sieve(shown_with(op), _prefix_of(op)) is None


def _prefix_of(op: operations.Count) -> str:
    """A prefix that all keys of a range have."""
    short = op.glob is not None and len(op.glob) <= SHORT_GLOB_MAX
    of_glob = compile_glob(op.glob).prefix if short and op.glob is not None else ""
    return max(op.prefix or "", of_glob, key=len)


def _is_of_a_range(op: operations.Count) -> bool:
    """Whether the index knows the count: there is no glob, or a short one that is a prefix."""
    return op.glob is None or (
        len(op.glob) <= SHORT_GLOB_MAX and validate(op) is None and compile_glob(op.glob).cost == 0
    )


#: How operations are judged, but for those that are judged by more than the keys in them.
_BY_KEYS: Final = {
    kind: judge
    for kind, judge in REFUSALS.items()
    if kind not in LEASING and kind not in {operations.Count, access_operations.SetVerifier}
}

#: Stands for a result that is still to come; told by identity.
_WAITING: Result = ("waiting",)
