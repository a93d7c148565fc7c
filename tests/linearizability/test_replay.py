"""The replay takes the histories of a right store, and no others: each change of a history that matters is found."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
import pytest

from tests.linearizability.history import History, Operation
from tests.linearizability.replay import Replay, made_a_revision
from tests.linearizability.simulation import FAULTS_OF_THE_STORE, FOUND_WITHIN, simulate
from tests.simulation.planted import PLANTED
from tests.simulation.promises import PromiseBroken

if TYPE_CHECKING:
    from collections.abc import Callable

    from haptera import Event
    from tests.linearizability.log import Log

#: Planted faults of the watch that tells the log.
FAULTS_OF_THE_LOG: Final = ("a watch in step misses an event", "a watch that catches up misses an event")


@cache
def recorded() -> History:
    """The first simulated history that can be altered in all of the ways."""
    return next(history for history in (simulate(seed)[0] for seed in range(100)) if can_be_altered(history))


def can_be_altered(history: History) -> bool:
    try:
        for alter in ALTERED:
            alter(Copied(history))
    except IndexError:
        return False
    return True


class Copied:
    """A history to be altered: its ``operations`` and the ``events`` of its log."""

    def __init__(self, history: History) -> None:
        assert history.log is not None
        self.history = History()
        self.history.operations = [msgspec.structs.replace(each) for each in history.operations]
        self.events = list(history.log.events)
        self.history.log = cast("Log", self)

    def answered(self, *methods: str) -> Operation:
        """The last change by one of some methods that has made a revision, and is not the last of all operations."""
        return [
            each
            for each in self.history.operations[:-10]
            if each.method in methods and each.outcome == "ok" and made_a_revision(each)
        ][-1]

    def read(self, *methods: str) -> Operation:
        """The last read that has found something, before the end."""
        return [
            each
            for each in self.history.operations[:-10]
            if each.method in methods and each.outcome == "ok" and any("value" in row for row in each.told.rows or [])
        ][-1]

    def place(self, found: Callable[[Event], bool]) -> int:
        """The place of the last event of some kind."""
        return [at for at, (_, event) in enumerate(self.events) if found(event)][-1]


def tell(operation: Operation, **told: Any) -> None:
    operation.told = msgspec.structs.replace(operation.told, **told)


def a_value_of_before(copy: Copied) -> None:
    read = copy.read("get", "get_many")
    tell(read, rows=[{**row, "value": "old"} if "value" in row else row for row in read.told.rows or []])


def a_version_of_before(copy: Copied) -> None:
    read = copy.read("get", "scan", "get_many")
    tell(read, rows=[{**row, "version": row.get("version", 1) - 1} for row in read.told.rows or []])


def a_stale_read(copy: Copied) -> None:
    read = copy.read("scan", "get_many", "get")
    begun = max(
        each.told.revision or 0
        for each in copy.history.operations
        if each.end is not None and each.end < read.call and each.outcome == "ok"
    )
    tell(read, revision=begun - 1)


def a_row_that_is_missing(copy: Copied) -> None:
    read = copy.read("scan")
    tell(read, rows=(read.told.rows or [])[1:])


def a_past_of_another_revision(copy: Copied) -> None:
    read = copy.read("look_back")
    tell(read, rows=[{**row, "version": row["version"] + 1} for row in read.told.rows or []])


def a_change_that_is_lost(copy: Copied) -> None:
    lost = copy.answered("set", "increment").told.revision
    copy.events = [(tick, event) for tick, event in copy.events if event.version != lost]


def a_change_that_is_made_twice(copy: Copied) -> None:
    tick, event = copy.events[-1]
    changed = copy.answered("set", "increment").argument["key"]
    again = msgspec.structs.replace(event, kind="put", key=changed, value=b"7", version=event.version + 1)
    copy.events.append((tick, again))


def an_increment_by_two(copy: Copied) -> None:
    increment = copy.answered("increment")
    increment.argument = {**increment.argument, "delta": increment.argument["delta"] + 1}


def two_changes_of_one_revision(copy: Copied) -> None:
    tell(copy.answered("set"), revision=copy.answered("increment").told.revision)


def a_change_that_is_told_before_it_is_asked_for(copy: Copied) -> None:
    set_ = copy.answered("set")
    copy.events = [(0 if event.version == set_.told.revision else tick, event) for tick, event in copy.events]


def a_change_behind_a_later_one(copy: Copied) -> None:
    set_ = copy.answered("set")
    set_.call = set_.end = copy.history.operations[-1].call


def an_end_of_a_key_that_does_not_expire(copy: Copied) -> None:
    at = copy.place(lambda event: event.kind == "delete")
    tick, event = copy.events[at]
    copy.events[at] = (tick, msgspec.structs.replace(event, kind="expire"))


def a_condition_that_held(copy: Copied) -> None:
    refused = [each for each in copy.history.operations if each.told.code == 4003 and each.method == "set"][-1]
    refused.argument = {name: value for name, value in refused.argument.items() if name != "if"}


ALTERED: Final = [
    a_value_of_before,
    a_version_of_before,
    a_stale_read,
    a_row_that_is_missing,
    a_past_of_another_revision,
    a_change_that_is_lost,
    a_change_that_is_made_twice,
    an_increment_by_two,
    two_changes_of_one_revision,
    a_change_that_is_told_before_it_is_asked_for,
    a_change_behind_a_later_one,
    an_end_of_a_key_that_does_not_expire,
    a_condition_that_held,
]


def test_a_history_of_a_right_store_is_taken() -> None:
    Replay(recorded()).check()
    Replay(Copied(recorded()).history).check()


@pytest.mark.parametrize("alter", ALTERED)
def test_a_history_that_is_altered_is_refused(alter: Callable[[Copied], None]) -> None:
    copy = Copied(recorded())
    alter(copy)
    with pytest.raises(PromiseBroken):
        Replay(copy.history).check()


@pytest.mark.parametrize("name", [*FAULTS_OF_THE_STORE, *FAULTS_OF_THE_LOG])
def test_the_replay_finds_a_planted_fault(name: str) -> None:
    with PLANTED[name]():
        assert any(map(is_refused, range(FOUND_WITHIN))), f"{FOUND_WITHIN} seeds have not shown it"


def is_refused(seed: int) -> bool:
    """Whether the run of a seed breaks a promise, or cannot even be read to its end: some faults end the node."""
    try:
        Replay(simulate(seed)[0]).check()
    except (PromiseBroken, AssertionError):
        return True
    return False
