"""The past of a store, as a replay of its log and of nothing else gives it: what answers and watches are held against.

It is read from the disk at the end of a run. So it has each change that lasted, and none that was lost.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Final, NamedTuple

from tests.simulation.promises import require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from haptera.state import StateMachine

#: An entry: value, version, and the Unix milliseconds at which it expires.
Stored = tuple[bytes, int, int | None]

KINDS: Final = {1: "put", 2: "delete", 3: "expire"}


class Change(NamedTuple):
    """A change of one key, the entry of after and of before, and its entry time."""

    revision: int
    kind: str
    key: str
    entry: Stored | None
    previous: Stored | None
    time_ms: int


class Past:
    """The changes behind the revision ``begin``, up to ``end``, and the entries ``present`` at the end."""

    def __init__(self, changes: Iterable[Change], begin: int, end: int, present: Mapping[str, Stored]) -> None:
        self.begin = begin
        self.end = end
        self._changes = list(changes)
        self._present = present
        self._of_key: dict[str, list[Change]] = {}
        for change in self._changes:
            self._of_key.setdefault(change.key, []).append(change)

    @classmethod
    def of(cls, machine: StateMachine) -> Past:
        """The past that a replayed state has, as far as the snapshot that it began with reaches back."""
        events = machine.kv.events
        past = cls(_changes_of(machine), events.compacted, machine.revision, dict(machine.kv.entries.items()))
        past.check()
        return past

    def changes(self, chosen: Callable[[str], bool], after: int) -> list[Change]:
        """The changes of the chosen keys behind a revision, in order."""
        return [change for change in self._changes if change.revision > after and chosen(change.key)]

    def change(self, key: str, revision: int) -> Change | None:
        """The change of a key that a revision made."""
        return next((change for change in self._of_key.get(key, ()) if change.revision == revision), None)

    def entry(self, key: str, revision: int) -> Stored | None:
        """The entry of a key at a revision that is not before the beginning. It may be dead, and not removed yet."""
        changes = self._of_key.get(key, [])
        at = bisect_right(changes, revision, key=lambda change: change.revision)
        if at:
            return changes[at - 1].entry
        return changes[0].previous if changes else self._present.get(key)

    def entries(self, chosen: Callable[[str], bool], revision: int) -> dict[str, Stored]:
        """The entries of the chosen keys at a revision, by key in order."""
        keys = sorted({*self._present, *self._of_key})
        found = {key: self.entry(key, revision) for key in keys if chosen(key)}
        return {key: entry for key, entry in found.items() if entry is not None}

    def gone_within(self, key: str, low: int, high: int) -> bool:
        """Whether a key was missing at one of some revisions."""
        return any(self.entry(key, revision) is None for revision in self._turns(key, low, high))

    def _turns(self, key: str, low: int, high: int) -> Iterator[int]:
        """The first of some revisions, and each other that has changed a key."""
        yield low
        yield from (change.revision for change in self._of_key.get(key, ()) if low < change.revision <= high)

    def check(self) -> None:
        """Hold the changes against each other: each leads from the entry of before to its own, no key has two at one
        revision, no change finds a key alive whose time is over, and a key ends by its time or its lease alone.
        """
        revisions = [change.revision for change in self._changes]
        require(revisions == sorted(revisions), "the changes are not in their order")
        for key, changes in self._of_key.items():
            before = changes[0].previous
            newest = self.begin
            for change in changes:
                require(newest < change.revision <= self.end, f"{key} has two changes at revision {change.revision}")
                require(change.previous == before, f"{change} does not begin with {before}")
                self._check_time(change)
                before, newest = change.entry, change.revision
            require(self._present.get(key) == before, f"{key} ends with {self._present.get(key)}, and not {before}")

    def _check_time(self, change: Change) -> None:
        ends_ms = None if change.previous is None else change.previous[2]
        over = ends_ms is not None and ends_ms <= change.time_ms
        require(not over or change.kind == "expire", f"{change} finds a key alive whose time is over")
        if change.kind == "expire":
            require(change.previous is not None and (ends_ms is None or over), f"{change} ends a key before its time")
        if change.entry is not None:
            _, version, expires_at_ms = change.entry
            require(version == change.revision, f"{change} has another version than its revision")
            require(expires_at_ms is None or expires_at_ms > change.time_ms, f"{change} is dead from the beginning")


def _changes_of(machine: StateMachine) -> Iterator[Change]:
    events = machine.kv.events
    place = events.first
    while found := events.read(place, 512):
        place += len(found)
        for revision, kind, key, entry, previous, time_ms, _ in found:
            yield Change(revision, KINDS[kind], key, entry, previous, time_ms)
