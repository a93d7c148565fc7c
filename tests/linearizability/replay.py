"""A history, replayed in the order of its revisions against the changes that a watch has told.

It needs no search: the log says the changes, and each answer names its revision. An answer without one is right if it
is that of any revision which its time allows. A key with a time to live may be absent from any place on, up to its end.
"""

from __future__ import annotations

from itertools import chain, combinations
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.linearizability.history import OF_THE_PAST, READS, shortened
from tests.linearizability.model import Effect, Entries, effect
from tests.simulation.promises import require

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from haptera import Event
    from tests.linearizability.history import History, Operation


class Moment(NamedTuple):
    """The revisions between which an operation has its place: the newest that was known when it began, and the oldest
    that may not have been there when it ended.
    """

    low: int
    high: int


class Replay:
    """The replay of a history with its log."""

    def __init__(self, history: History) -> None:
        assert history.log is not None
        self._events: dict[int, list[Event]] = {}
        self._told_at: dict[int, int] = {}
        for tick, event in history.log.events:
            self._events.setdefault(event.version, []).append(event)
            self._told_at.setdefault(event.version, tick)
        self._operations = [operation for operation in history.operations if operation.counts]
        self._answered = [operation for operation in self._operations if operation.outcome != "unknown"]
        self._open = [operation for operation in self._operations if operation.outcome == "unknown"]
        told = [operation.told.revision or 0 for operation in self._answered]
        self.end = max([0, *self._events, *told])
        #: The entries at each revision, dead ones too.
        self._states: list[Entries] = [{}]
        self._over: set[int] = set()  # leases that have ended with keys

    def check(self) -> None:
        """Hold all answers against the log. Raises PromiseBroken."""
        owners = self._owners()
        for revision in range(1, self.end + 1):
            self._advance(revision, owners.get(revision))
        for operation in self._answered:
            self._check_answer(operation, self._moment(operation))

    # -- the changes

    def _owners(self) -> dict[int, Operation]:
        """The answered change that has made each revision. Repetitions of one request have made the same."""
        owners: dict[int, Operation] = {}
        for operation in self._answered:
            revision = operation.told.revision
            if revision is None or not made_a_revision(operation):
                continue
            other = owners.setdefault(revision, operation)
            same = other is operation or (operation.request and operation.request == other.request)
            require(bool(same), f"{other} and {operation} have made one revision")
        return owners

    def _advance(self, revision: int, owner: Operation | None) -> None:
        """Make the next state, by the operation that has made it."""
        before, events = self._states[-1], self._events.get(revision, [])
        for event in events:
            previous = event.previous and (shortened(event.previous.value), event.previous.version)
            held = before.get(event.key)
            require(previous == (held and held[:2]), f"{event} follows {held}")
        if any(event.kind == "expire" for event in events):
            require(owner is None, f"{owner} was answered with the revision of {events}")
            self._states.append(self._ended(before, events))
            return
        candidates = [owner] if owner is not None else self._open
        for operation in candidates:
            if self._asked_at(operation) > self._told_at.get(revision, operation.call):
                continue  # it was told before anyone asked for it
            made = self._made(operation, before, revision, events)
            if made is not None:
                if owner is None:
                    self._open = [other for other in self._open if not is_same_request(other, operation)]
                self._states.append(made)
                return
        require(False, f"nothing explains {events} of revision {revision} behind {before}: {owner}")

    def _asked_at(self, operation: Operation) -> int:
        """When an operation was asked for, by any attempt at it."""
        return min(other.call for other in self._operations if is_same_request(other, operation))

    def _made(self, operation: Operation, before: Entries, revision: int, events: list[Event]) -> Entries | None:
        """The entries that an operation has made, if its changes are these events."""
        for living in lives(before):
            found = effect(operation.method, operation.argument, living, revision)
            if found.code or not found.changed or not is_told(found, events):
                continue
            if operation.outcome == "ok" and not agrees(operation, found):
                continue
            after = {key: held for key, held in before.items() if key not in found.changes}
            after |= {key: held for key, held in found.changes.items() if held is not None}
            leases = {held.lease for held in found.changes.values() if held is not None}
            require(not self._over & leases, f"{operation} has brought a key to a lease that is over")
            return after
        return None

    def _ended(self, before: Entries, events: list[Event]) -> Entries:
        """The entries without those that have ended: mortal ones, and all of some leases."""
        ended = {event.key: before[event.key] for event in events}
        leases = {held.lease for held in ended.values() if held.lease}
        belonging = {key for key, held in before.items() if held.lease in leases}
        right = all(held.mortal or held.lease for held in ended.values()) and belonging <= ended.keys()
        require(right, f"{events} end, and {belonging} belong to the leases {leases}")
        self._over |= leases
        return {key: held for key, held in before.items() if key not in ended}

    # -- the answers

    def _moment(self, operation: Operation) -> Moment:
        """The revisions that real time allows."""
        assert operation.end is not None
        known = [
            other.told.revision
            for other in self._answered
            if other.told.revision is not None and other.end is not None and other.end < operation.call
        ]
        told = [revision for revision, tick in self._told_at.items() if tick < operation.call]
        later = [
            other.told.revision - made_a_revision(other)
            for other in self._answered
            if other.told.revision is not None
            and other.call > operation.end
            and not (other.told.loose or other.request or other.method in OF_THE_PAST)
        ]
        return Moment(max([0, *known, *told]), min([self.end, *later]))

    def _check_answer(self, operation: Operation, moment: Moment) -> None:
        revision, low = operation.told.revision, moment.low
        if revision is not None and made_a_revision(operation):
            is_first = not operation.request  # a repetition is answered with a revision that may be known
            require(not is_first or revision > low, f"{operation} has made {revision}, and {low} was known")
            return  # its effect was held against the log
        if operation.method in OF_THE_PAST:
            within: Sequence[int] = [operation.argument["at_revision"]]
            require(revision == within[0], f"{operation} is of another revision")
        elif revision is None or operation.told.loose:
            within = range(low, min(moment.high, revision or moment.high) + 1)
        else:
            within = [revision] if low <= revision <= moment.high else []
        explained = any(self._gives(operation, at) for at in within)
        require(explained, f"no revision of {within} (of {moment}) gives the answer of {operation}")

    def _gives(self, operation: Operation, revision: int) -> bool:
        """Whether an operation that changes nothing has its answer from the store of a revision."""
        entries = self._states[revision]
        if operation.told.code == 4010:
            return all(held.lease != operation.argument["lease"] for held in entries.values())
        for living in lives(entries):
            found = effect(operation.method, operation.argument, living, revision + 1)
            if not (found.changed and not found.code) and agrees(operation, found):
                return True
        return False


def lives(entries: Entries) -> Iterator[Entries]:
    """The entries, without any of those whose time may be over."""
    mortal = [key for key, held in entries.items() if held.mortal]
    for dead in chain.from_iterable(combinations(mortal, count) for count in range(len(mortal) + 1)):
        yield {key: held for key, held in entries.items() if key not in dead}


def made_a_revision(operation: Operation) -> bool:
    """Whether an answered operation has made the revision that it was told."""
    if operation.method in READS or operation.told.code:
        return False
    if operation.outcome == "applied":
        return True
    if operation.method in {"delete", "delete_many", "clear"}:
        return bool(operation.told.number)
    return not operation.told.loose


def is_same_request(one: Operation, other: Operation) -> bool:
    """Whether two operations are one, or attempts at one request."""
    return one is other or (one.request != "" and one.request == other.request)


def is_told(found: Effect, events: list[Event]) -> bool:
    """Whether some events tell an effect, and nothing else."""
    told = {event.key: (event.value and shortened(event.value), event.expires_at is not None) for event in events}
    return told == {
        key: (None, False) if held is None else (held.value, held.mortal) for key, held in found.changes.items()
    }


def agrees(operation: Operation, found: Effect) -> bool:
    """Whether an operation was told an answer."""
    told = operation.told
    if told.code or found.code:
        return told.code == found.code and told.actual in {None, found.actual}
    if told.number is not None and told.number != found.number:
        return False
    return told.rows is None or [*map(seen(operation), told.rows)] == [*map(seen(operation), found.rows or [])]


def seen(operation: Operation) -> Any:
    """How an operation sees a row: one that asks for keys alone sees no value."""
    if operation.told.keys_only:
        return lambda row: {name: value for name, value in row.items() if name != "value"}
    return lambda row: row
