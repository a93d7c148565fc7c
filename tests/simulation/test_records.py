"""The records tell what a right node may have done from what it may not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Final

import pytest

from haptera import Event
from haptera.state import Logged, StateMachine, Write, operations
from tests.simulation.answers import Answers, Span
from tests.simulation.holders import Asked, Lease, Refusal
from tests.simulation.leases import LeaseReplay
from tests.simulation.lives import Life
from tests.simulation.past import Change, Past
from tests.simulation.promises import PromiseBroken
from tests.simulation.watchers import Session

A1, A2, B3 = (b"1", 1, None), (b"2", 2, None), (b"3", 3, None)
CHANGES: Final = (
    Change(1, "put", "a", A1, None, 0),
    Change(2, "put", "a", A2, A1, 0),
    Change(3, "put", "b", B3, None, 0),
    Change(3, "delete", "a", None, A2, 0),
)
PAST: Final = Past(CHANGES, 0, 3, {"b": B3})


def replayed(*commands: tuple[int, Write]) -> StateMachine:
    """The state that some commands make, each at its time."""
    machine = StateMachine()
    for index, (time_ms, op) in enumerate(commands, 1):
        machine.apply(index, time_ms, [Logged(op)])
    return machine


def test_the_past_is_that_of_a_replay() -> None:
    machine = replayed(
        (5, operations.Set("a", b"1", ttl_ms=10)), (15, operations.ExpireDue(["a"])), (16, operations.Set("b", b"2"))
    )
    past = Past.of(machine)
    assert past.changes(lambda _: True, 0) == [
        Change(1, "put", "a", (b"1", 1, 15), None, 5),
        Change(2, "expire", "a", None, (b"1", 1, 15), 15),
        Change(3, "put", "b", (b"2", 3, None), None, 16),
    ]
    assert past.entries(lambda _: True, 1) == {"a": (b"1", 1, 15)}
    assert past.entries(lambda _: True, 3) == {"b": (b"2", 3, None)}
    assert past.gone_within("a", 1, 2)
    assert not past.gone_within("a", 1, 1)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (CHANGES[:1] + CHANGES[2:], "does not begin with"),
        (CHANGES[:3], "ends with None"),
        ((*CHANGES[:2], CHANGES[3], CHANGES[2], CHANGES[2]), "two changes"),
        ((*CHANGES[1:], CHANGES[0]), "not in their order"),
        ((Change(1, "put", "b", (b"3", 1, 5), None, 5),), "dead from the beginning"),
        ((Change(1, "expire", "a", None, (b"1", 1, 5), 4),), "before its time"),
        ((Change(1, "delete", "a", None, (b"1", 1, 5), 5),), "alive whose time is over"),
    ],
)
def test_a_past_that_does_not_hang_together_is_refused(changes: tuple[Change, ...], text: str) -> None:
    with pytest.raises(PromiseBroken, match=text):
        Past(changes, 0, 3, {"b": B3}).check()


def answered(method: str, *arguments: Any) -> None:
    """Hold one answer against the past."""
    answers = Answers()
    getattr(answers, method)("it", *arguments)
    answers.check(PAST)


def test_answers_that_the_past_gives_are_taken() -> None:
    answered("read", Span(1, 2), 2, {"a": (b"2", 2), "b": None})
    answered("read_past", Span(3, 3), 1, {"a": (b"1", 1)})
    answered("missing", Span(2, 3), "a")
    answered("written", Span(1, 3), 2, {"a": b"2"})
    answered("written", Span(1, 3), 3, {"a": None, "b": b"3"})
    answered("refused", {"a": b"4"})


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        pytest.param("read", (Span(2, 2), 2, {"a": (b"1", 1)}), id="a read of an older state"),
        pytest.param("read", (Span(3, 3), 2, {"a": (b"2", 2)}), id="a read of a revision before one that was known"),
        pytest.param("read", (Span(3, 3), 4, {}), id="a read of a revision that does not last"),
        pytest.param("read", (Span(3, 3), 3, {"b": None}), id="a read without a key that is there"),
        pytest.param("read_past", (Span(3, 3), 1, {"a": (b"2", 2)}), id="a read of the past of another revision"),
        pytest.param("missing", (Span(1, 2), "a"), id="a key that was there all the time"),
        pytest.param("written", (Span(0, 3), 2, {"a": b"1"}), id="another change at the revision"),
        pytest.param("written", (Span(2, 3), 2, {"a": b"2"}), id="a revision that was known before"),
        pytest.param("written", (Span(0, 3), 2, {"b": b"2"}), id="a change that is lost"),
        pytest.param("refused", ({"a": b"2"},), id="a change that was called not applied"),
    ],
)
def test_an_answer_that_the_past_rules_out_is_refused(method: str, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(PromiseBroken):
        answered(method, *arguments)


EVENTS: Final = (Event("put", "a", b"1", 1), Event("put", "a", b"2", 2), Event("put", "b", b"3", 3))
REMOVED: Final = Event("delete", "a", None, 3)


def watched(*events: Event, begun: int | None = 0, seen: int = 0, until: int = 0, **keys: str) -> None:
    """Hold a watch that was told these events against the past."""
    session = Session(keys, previous=False, begun=begun, seen=seen)
    for event in events:
        session.take(event)
    session.initial = events[:1] != () and events[0].kind in {"present", "synced"}
    session.check(PAST, until)


def test_watches_that_were_told_each_change_once_and_in_order_are_taken() -> None:
    watched(*EVENTS, REMOVED, seen=3, until=3)
    watched(*EVENTS[:2], seen=1)
    watched(*EVENTS[:2], seen=2)
    watched(*EVENTS[:2], REMOVED, seen=3, key="a")
    watched(EVENTS[2], begun=2, seen=3, prefix="b")
    watched(begun=None)
    watched(Event("present", "a", b"2", 2), Event("synced", "", None, 2), *EVENTS[2:], REMOVED, seen=3)


@pytest.mark.parametrize(
    ("events", "options"),
    [
        pytest.param((EVENTS[0], *EVENTS[2:], REMOVED), {}, id="an event is missing"),
        pytest.param((EVENTS[0], *EVENTS), {}, id="an event comes twice"),
        pytest.param((EVENTS[1], EVENTS[0]), {}, id="the order is another"),
        pytest.param(EVENTS, {"seen": 3}, id="a half of a revision is called the whole"),
        pytest.param(EVENTS, {"until": 3}, id="the end is missing"),
        pytest.param((*EVENTS, REMOVED, Event("put", "b", b"4", 4)), {}, id="an event does not last"),
        pytest.param((Event("put", "a", b"9", 1),), {}, id="another value"),
        pytest.param(EVENTS, {"prefix": "a"}, id="an event of another key"),
        pytest.param(EVENTS[:1], {"begun": None}, id="an event before the beginning"),
        pytest.param(
            (Event("present", "a", b"1", 1), Event("synced", "", None, 2)), {}, id="it begins with an older entry"
        ),
        pytest.param((Event("synced", "", None, 2),), {}, id="it begins without an entry"),
    ],
)
def test_a_watch_that_was_told_anything_else_is_refused(events: tuple[Event, ...], options: dict[str, Any]) -> None:
    with pytest.raises(PromiseBroken):
        watched(*events, **options)


def test_a_key_lives_for_its_time_and_no_longer() -> None:
    life = Life()
    life.begins(1.0, 1.5, ttl=2.0)
    life.seen(2.9, 2.95, alive=True)
    life.seen(2.9, 3.1, alive=False)
    life.seen(3.4, 3.45, alive=True)
    with pytest.raises(PromiseBroken, match=r"gone by 2\.9"):
        life.seen(2.8, 2.9, alive=False)
    with pytest.raises(PromiseBroken, match=r"read at 3\.6"):
        life.seen(3.6, 3.7, alive=True)
    life.persists()
    with pytest.raises(PromiseBroken):
        life.seen(100.0, 101.0, alive=False)
    life.may_have_changed()
    life.begins(200.0, 201.0, ttl=1.0)
    life.seen(300.0, 301.0, alive=True)  # by the change whose outcome is not known


def test_a_lease_is_not_over_before_its_last_renewal_has_ended() -> None:
    lease = Lease(3, 2.0, until=2.0)
    lease.is_renewed(1.0)
    lease.is_over(3.0)
    with pytest.raises(PromiseBroken, match=r"had time until 4\.5"):
        lease.is_renewed(2.5)
    with pytest.raises(PromiseBroken, match=r"was over by 2\.5"):
        Lease(3, 2.0, until=3.0).is_over(2.5)
    Lease(3, 2.0, until=3.0, may_be_revoked=True).is_over(2.5)


def held(at: int) -> str:
    return f"held/1/{at}"


def put(revision: int, at: int, value: bytes, previous: tuple[bytes, int] | None = None) -> Change:
    before = None if previous is None else (*previous, None)
    return Change(revision, "put", held(at), (value, revision, None), before, 0)


def ended(revision: int, at: int, value: bytes, version: int, kind: str = "expire") -> Change:
    return Change(revision, kind, held(at), None, (value, version, None), 0)


#: Two keys come to the lease 1 at revision 2, the third at 3; a change behind the fence 2 follows.
ATTACHED: Final = (put(2, 0, b"a"), put(2, 1, b"a"), put(3, 2, b"b"), put(4, 3, b"fenced"))
END: Final = (ended(5, 0, b"a", 2), ended(5, 1, b"a", 2), ended(5, 2, b"b", 3))
FENCED: Final = Refusal("it", Span(4, 5), 2)


def replay_leases(
    *changes: Change, fenced: Refusal | None = None, without_lease: Refusal | None = None, told: float = 10.0
) -> None:
    """Replay changes of the keys of a holder, to whom some calls were refused."""
    holder: Any = SimpleNamespace(prefix="held/1/", leases={1: Lease(1, 2.0, until=9.0)})
    holder.asked = {(held(at), value): Asked(lease=1) for at in range(3) for value in (b"a", b"b", b"late")}
    holder.asked |= {(held(3), b"fenced"): Asked(fence=2), (held(0), b"plain"): Asked()}
    holder.fenced = [] if fenced is None else [fenced]
    holder.without_lease = [] if without_lease is None else [without_lease]
    LeaseReplay(holder).check(Past(changes, 0, 9, {}), [(told, held(0), 5)])


def test_leases_that_end_with_all_of_their_keys_are_taken() -> None:
    replay_leases(*ATTACHED, *END, fenced=FENCED, without_lease=Refusal("it", Span(5, 5), 1))
    replay_leases(*ATTACHED, put(5, 0, b"plain", (b"a", 2)), ended(6, 1, b"a", 2), ended(6, 2, b"b", 3))
    replay_leases(*ATTACHED, put(5, 0, b"a", (b"a", 2)), ended(6, 1, b"a", 2), ended(6, 2, b"b", 3))  # a persist
    renamed = (ended(5, 2, b"b", 3, "delete"), put(5, 0, b"b", (b"a", 2)))
    replay_leases(*ATTACHED, *renamed, ended(6, 0, b"b", 5), ended(6, 1, b"a", 2))


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        pytest.param(END[:2], {}, id="a key is left"),
        pytest.param((*END[:2], ended(6, 2, b"b", 3)), {}, id="it ends at two revisions"),
        pytest.param((*END, ended(5, 3, b"fenced", 4)), {}, id="it takes a key that is not its own"),
        pytest.param(
            (put(5, 0, b"plain", (b"a", 2)), ended(6, 0, b"plain", 5), ended(6, 1, b"a", 2), ended(6, 2, b"b", 3)),
            {},
            id="it takes a key that has left it",
        ),
        pytest.param((*END, put(6, 0, b"late")), {}, id="a key comes to a lease that is over"),
        pytest.param((*END, ended(6, 3, b"fenced", 4, "delete"), put(7, 3, b"fenced")), {}, id="a fence is passed"),
        pytest.param(END, {"fenced": Refusal("it", Span(3, 4), 2)}, id="a fence that stands is refused"),
        pytest.param(END, {"without_lease": Refusal("it", Span(3, 4), 1)}, id="a lease that is there is not found"),
        pytest.param(END, {"told": 8.0}, id="a watcher is told too early"),
        pytest.param((), {}, id="it never ends"),
    ],
)
def test_leases_that_end_otherwise_are_refused(changes: tuple[Change, ...], options: dict[str, Any]) -> None:
    with pytest.raises(PromiseBroken):
        replay_leases(*ATTACHED, *changes, **options)
