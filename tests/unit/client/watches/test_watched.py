"""How far a watch has come: nothing is given twice and nothing left out, wherever its connection is lost."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haptera.client.watches.watched import Happened, WatchItem, WatchPosition
from haptera.errors import RemoteProtocolError, RevisionCompacted

SERVER, OTHER = b"s" * 16, b"o" * 16


def put(key: str, revision: int) -> Happened:
    return Happened(1, key, b"", revision)


def items_from(history: list[Happened], start: int, cuts: list[int]) -> list[WatchItem]:
    """The ITEMs that a node sends from a revision on, cut at places."""
    events = [event for event in history if event.version >= start]
    items = [WatchItem(start - 1, [])]
    bounds = sorted({0, len(events), *(cut % (len(events) + 1) for cut in cuts)})
    for low, high in pairwise(bounds):
        last = events[high - 1].version
        items.append(WatchItem(last, events[low:high], high < len(events) and events[high].version == last))
    return items


histories = st.lists(st.integers(1, 5), max_size=8).map(
    lambda sizes: [put(f"{each}", revision) for revision, size in enumerate(sizes, 1) for each in range(size)]
)


@given(histories, st.data())
def test_each_event_is_given_once_over_any_connections(history: list[Happened], data: st.DataObject) -> None:
    position = WatchPosition({"prefix": "", "start_revision": 1})
    given_ = []
    for _ in range(6):
        start = position.options()["start_revision"]
        items = items_from(history, start, data.draw(st.lists(st.integers(0, 40), max_size=6)))
        for item in items[: data.draw(st.integers(0, len(items)))]:
            given_ += position.take(item, SERVER)
    for item in items_from(history, position.options()["start_revision"], []):
        given_ += position.take(item, SERVER)
    assert given_ == history


def test_a_watch_goes_on_behind_the_last_mark() -> None:
    position = WatchPosition({"prefix": "a", "with_previous": True})
    assert position.options() == {"prefix": "a", "with_previous": True}
    position.take(WatchItem(7, []), SERVER)
    position.take(WatchItem(9, []), SERVER)
    assert position.seen == 9
    assert position.options() == {"prefix": "a", "with_previous": True, "start_revision": 10}


def test_a_watch_with_entries_goes_on_only_behind_their_mark() -> None:
    position = WatchPosition({"initial": True, "prefix": "a"})
    assert [position.resumable, position.synced] == [True, False]
    present = Happened(0, "a", b"", 3)
    assert position.take(WatchItem(7, [present], more=True), SERVER) == [present]
    assert [position.resumable, position.synced] == [False, False]
    assert position.take(WatchItem(7, []), SERVER) == []
    assert [position.resumable, position.synced] == [True, True]
    assert position.options() == {"prefix": "a", "start_revision": 8}


def test_a_watch_goes_on_at_its_own_server_alone() -> None:
    position = WatchPosition({"prefix": "a"})
    position.check_server(OTHER)  # nothing was given: it begins anywhere
    position.take(WatchItem(7, []), SERVER)
    position.check_server(SERVER)
    for other in (OTHER, None):
        with pytest.raises(RevisionCompacted, match="another server") as refused:
            position.check_server(other)
        assert refused.value.details == {"revision": 8}


@pytest.mark.parametrize(
    "wrong",
    [
        WatchItem(5, [put("a", 5), put("b", 4)]),
        WatchItem(5, [put("a", 3)]),
        WatchItem(5, [put("a", 6)]),
    ],
)
def test_events_out_of_order_are_refused(wrong: WatchItem) -> None:
    position = WatchPosition({"start_revision": 4})
    position.take(WatchItem(3, []), SERVER)
    with pytest.raises(RemoteProtocolError, match="not in their order"):
        position.take(wrong, SERVER)
