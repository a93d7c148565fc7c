"""The index of the keys that expire: what becomes due and when, in short steps, for any times."""

from __future__ import annotations

import random
import sys
from itertools import islice
from typing import TYPE_CHECKING

import hypothesis.strategies as st
import pytest
from hypothesis import given

from haptera.state import expiry, limits, table
from haptera.state.expiry import NEVER, ExpiryIndex

if TYPE_CHECKING:
    from collections.abc import Iterator

START = 1_790_000_000_000


@pytest.fixture(autouse=True, scope="module")
def _tables_that_are_split_early() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "SPLIT_AT", 3)
        yield


def due(index: ExpiryIndex, now_ms: int) -> set[str]:
    assert index.advance(now_ms, sys.maxsize)
    index.check()
    return {key for piece in index.due_pieces(now_ms) for key in piece}


def test_a_key_is_due_at_its_very_millisecond() -> None:
    for ttl_ms in [1, 63, 64, 65, 4095, 4096, 1 << 20, (1 << 24) + 1, 3_153_600_000_000]:
        index = ExpiryIndex(START)
        index.add("a", START + ttl_ms, START)
        assert due(index, START + ttl_ms - 1) == set()
        assert due(index, START + ttl_ms) == {"a"}


def test_a_key_whose_time_has_come_already_is_due_at_once() -> None:
    index = ExpiryIndex(START)
    for number in range(5):
        index.add(f"{number}", START - number, START)
    assert due(index, START) == {"0", "1", "2", "3", "4"}


def test_the_next_time_is_not_later_than_the_first_key() -> None:
    index = ExpiryIndex(START)
    assert index.next_ms == NEVER
    index.add("far", START + 10**9, START)
    index.add("near", START + 70, START)
    assert START < index.next_ms <= START + 70
    index.remove("near", START + 70)
    assert due(index, START + 70) == set()
    assert START + 70 < index.next_ms <= START + 10**9


def test_a_key_that_is_moved_to_an_earlier_time_of_its_slot_is_due_in_time() -> None:
    slot = (START // 4096 + 3) * 4096
    index = ExpiryIndex(START)
    index.add("a", slot + 100, START)
    index.move("a", slot + 100, slot + 50)
    assert index.next_ms <= slot + 50
    index.check()
    assert due(index, slot + 49) == set()
    assert due(index, slot + 50) == {"a"}


def test_a_node_wakes_only_a_few_times_for_a_key_that_is_far_away() -> None:
    """Once for each level of the wheel."""
    index = ExpiryIndex(START)
    time_ms = START + 3_153_600_000_000
    index.add("a", time_ms, START)
    wakes = 0
    while not index.due:
        assert index.advance(index.next_ms, sys.maxsize)
        wakes += 1
    assert wakes <= 8
    assert index.reached == time_ms


changes = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 12), st.integers(-5, 300) | st.integers(0, 10**6)),
        st.tuples(st.just("remove"), st.integers(0, 12), st.just(0)),
        st.tuples(st.just("advance"), st.integers(0, 4), st.integers(0, 500) | st.integers(0, 10**6)),
    ),
    max_size=60,
)


@given(changes)
def test_any_changes_give_the_keys_whose_time_has_come(steps: list[tuple[str, int, int]]) -> None:
    """An `advance` may stop in the middle of a slot, and keys are added, moved and removed meanwhile."""
    index, model, now = ExpiryIndex(START), dict[str, int](), START
    for step, number, amount in steps:
        key = f"{number}"
        if step == "put":
            if key in model:
                index.move(key, model[key], now + amount)
            else:
                index.add(key, now + amount, START)
            model[key] = now + amount
        elif step == "remove" and key in model:
            index.remove(key, model.pop(key))
        elif step == "advance":
            now += amount
            if index.advance(now, number):
                assert index.reached >= now
        index.check()
        assert dict(index.items()) == model
        assert all(index.next_ms <= time_ms for time_ms in model.values() if time_ms > index.reached)
    assert due(index, now) == {key for key, time_ms in model.items() if time_ms <= now}
    assert due(index, now + 10**7) == set(model)
    freed = 0
    while count := index.free(2):
        freed += count
    assert freed == len(model)


def test_a_slot_of_many_keys_is_filed_in_short_slices() -> None:
    index = ExpiryIndex(START)
    for number in range(20_000):
        index.add(f"{number}", START + 100_000 + number % 7, START)
    work = list(index.advance_steps(START + 100_010))
    assert len(work) > 5
    assert max(work) <= limits.SLICE_WORK_MAX
    assert len(index.due) == 20_000


def test_slots_that_are_filled_together_are_not_split_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their keys come in the order of hashes, so all of them would reach the number at the same time: 16 splits of 2 ms
    in one slice, where 1,000,000 keys end within a second.
    """
    for module in (table, expiry):
        monkeypatch.setattr(module, "SPLIT_AT", 64)
    index, base = ExpiryIndex(START), (START // 4096 + 50) * 4096
    for number in range(8000):
        index.add(f"{number}", base + number % 8 * 64 + 1, START)
    splits: list[int] = []
    monkeypatch.setattr(table.Table, "_split", lambda _, whole: splits.append(len(whole)))
    for _ in index.advance_steps(base + 4096):
        pass
    assert not splits
    assert len(index.due) == 8000
    index.check()


def test_slots_of_few_keys_are_plain_dicts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts of a large one take longer to make than some keys to file, and more memory."""
    monkeypatch.setattr(table, "SPLIT_AT", 10_922)
    index, base = ExpiryIndex(START), (START // 4096 + 50) * 4096
    for number in range(640):
        index.add(f"{number}", base + number % 64 * 64 + 1, START)
    index.advance(base, sys.maxsize)
    assert [slot.whole is not None for slot in index._slots.values()] == [True] * 64


def test_slices_of_less_work_than_a_key_takes_come_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SLICE_WORK_MAX", 1)
    index = ExpiryIndex(START)
    for number in range(10):
        index.add(f"{number}", START + 100_000 + number, START)
    steps = index.advance_steps(START + 100_010)
    assert sum(1 for _ in islice(steps, 10_000)) < 10_000
    assert len(index.due) == 10


def test_a_session_that_is_refreshed_for_ever_leaves_nothing_behind() -> None:
    """Trap: a list of times that grows with each refresh, until the keys expire."""
    index, now, chance = ExpiryIndex(START), START, random.Random(7)
    times = {f"{number}": START + 1_800_000 for number in range(50)}
    for key, time_ms in times.items():
        index.add(key, time_ms, START)
    for _ in range(20_000):
        now += 37
        key = f"{chance.randrange(50)}"
        index.move(key, times[key], now + 1_800_000)
        times[key] = now + 1_800_000
        if index.next_ms <= now:
            index.advance(now, sys.maxsize)
    assert sum(1 for _ in index.items()) == 50
    assert len(index._slots) < 64
    index.check()


def test_the_room_of_due_keys_is_given_back() -> None:
    index = ExpiryIndex(START)
    for number in range(100):
        index.add(f"{number}", START + 1, START)
    assert len(due(index, START + 1)) == 100
    before = index.due
    for number in range(100):
        index.remove(f"{number}", START + 1)
    index.advance(START + 2, 1)
    assert index.due is not before
