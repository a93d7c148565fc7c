"""The table of the state: a dict that grows in short steps."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haptera.state import table as tables
from haptera.state.held_entries import HeldEntries
from haptera.state.kv import Kv
from haptera.state.table import PARTS, SPLIT_AT, Table

if TYPE_CHECKING:
    from collections.abc import Callable

KEYS = [f"key/{number:06}" for number in range(100_000)]
#: Keys of a part at most, of each 1,000 keys. Even hashes would give 2.0; the 1 more is seven deviations.
PART_OF_1000_MAX = 3


def filled(keys: list[str] = KEYS) -> Table[int]:
    table: Table[int] = Table()
    for number, key in enumerate(keys):
        table.put(key, number)
    return table


def longest(table: Table[Any]) -> int:
    return max(map(len, table.parts))


keys = st.text("abc", min_size=1, max_size=3)
changes = st.lists(
    st.one_of(
        st.tuples(st.just("put"), keys, st.integers()),
        st.tuples(st.just("put_all"), st.lists(keys, max_size=6), st.integers()),
        st.tuples(st.just("remove"), keys, st.none()),
    ),
    max_size=40,
)


@pytest.fixture
def split_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "SPLIT_AT", 4)


@given(changes)
def test_a_small_table_is_a_dict(changes: list[tuple[str, Any, Any]]) -> None:
    assert _as_a_dict(changes).whole is not None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes)
def test_a_table_that_is_split_is_a_dict(split_early: None, changes: list[tuple[str, Any, Any]]) -> None:
    _as_a_dict(changes)


@given(changes)
def test_a_table_that_is_large_from_the_beginning_is_a_dict(changes: list[tuple[str, Any, Any]]) -> None:
    assert len(_as_a_dict(changes, large=True).parts) == PARTS


def _as_a_dict(changes: list[tuple[str, Any, Any]], *, large: bool = False) -> Table[int]:
    """The table after all changes, after each of which it was compared with a dict."""
    table: Table[int] = Table(large=large)
    model: dict[str, int] = {}
    for name, key, value in changes:
        if name == "put":
            table.put(key, value)
            model[key] = value
        elif name == "put_all":
            table.put_all(key, [value] * len(key))
            model.update(dict.fromkeys(key, value))
        elif key in model:
            table.remove(key)
            del model[key]
        else:
            with pytest.raises(KeyError):
                table.remove(key)
        for looked in [key] if isinstance(key, str) else key:
            assert table.get(looked) == model.get(looked)
            assert (looked in table) == (looked in model)
        table.check()
    assert len(table) == len(model)
    assert sorted(table) == sorted(model)
    assert dict(table.items()) == model
    assert sorted(table.values()) == sorted(model.values())
    return table


def test_a_table_is_split_before_a_plain_dict_would_have_to_grow() -> None:
    table = filled(KEYS[: SPLIT_AT - 1])
    assert table.parts == [table.whole]
    room = table.parts[0].__sizeof__()
    assert filled(KEYS[: SPLIT_AT * 9 // 10]).parts[0].__sizeof__() == room
    table.put(KEYS[SPLIT_AT - 1], SPLIT_AT - 1)
    assert table.whole is None
    assert len(table.parts) == PARTS
    assert [table.get(key) for key in KEYS[:SPLIT_AT]] == list(range(SPLIT_AT))
    table.check()
    plain = dict.fromkeys(KEYS[:SPLIT_AT], 0)
    assert plain.__sizeof__() == room
    plain[KEYS[SPLIT_AT]] = 0
    assert plain.__sizeof__() > room


def test_no_table_refers_to_itself() -> None:
    gc.collect()
    table = filled()
    parts = table.parts
    del table
    assert [type(each).__name__ for each in gc.get_referrers(parts)] in ([], ["frame"])


def test_an_emptied_table_is_a_plain_dict_again() -> None:
    table = filled(KEYS[:SPLIT_AT])
    while table.free(1000):
        table.check()
    assert table.parts == [table.whole] == [{}]
    for key in KEYS[:SPLIT_AT]:
        table.put(key, 1)
    assert len(table) == SPLIT_AT
    table.check()


def test_no_part_grows_with_more_than_its_share_of_the_keys() -> None:
    table = filled()
    assert len(table.parts) == PARTS
    assert longest(table) <= len(KEYS) * PART_OF_1000_MAX // 1000
    table.check()


def test_the_keys_of_a_part_differ_in_the_bits_by_which_a_dict_looks_for_them() -> None:
    part = max(filled().parts, key=len)
    slots = 1 << (2 * len(part)).bit_length()
    assert len({hash(key) % slots for key in part}) > len(part) // 2


@pytest.mark.parametrize("tables", [lambda: [Kv().entries], lambda: [HeldEntries(print, print).records]])
def test_what_grows_with_the_store_is_a_table(tables: Callable[[], list[Any]]) -> None:
    assert all(type(table) is Table for table in tables())


def test_a_table_is_freed_a_little_at_a_time() -> None:
    table = filled(KEYS[:1000])
    assert table.free(300) == 300
    assert len(table) == 700
    assert all(KEYS[number] == key for key, number in table.items())
    assert table.free(5000) == 700
    assert table.free(1) == 0
    assert len(table) == 0


def test_an_emptied_part_gives_its_room_back() -> None:
    table = filled()
    parts = table.parts
    while table.free(1000):
        pass
    assert len(parts) == PARTS
    assert all(part.__sizeof__() == {}.__sizeof__() for part in parts)


def test_all_parts_are_followed_by_the_garbage_collector_when_they_are_to_be_frozen() -> None:
    table: Table[tuple[int, ...]] = Table()
    for key in KEYS[:100]:
        table.put(key, (1,))
    gc.collect()
    table.track((*[2],))
    assert all(map(gc.is_tracked, table.parts))
    assert len(table) == 100
    table.check()
    for number, key in enumerate(KEYS[:SPLIT_AT]):
        table.put(key, (number,))
    gc.collect()
    assert len(table.parts) == PARTS
    table.track((*[2],))
    assert all(map(gc.is_tracked, table.parts))


def test_the_parts_of_a_plain_dict_are_made_and_followed_before_they_are_needed() -> None:
    table: Table[tuple[int, ...]] = Table()
    gc.disable()  # it would soon stop following the empty parts
    try:
        table.track((*[2],))
        made = {id(each) for each in gc.get_objects() if type(each) is dict and not each}
    finally:
        gc.enable()
    for number, key in enumerate(KEYS[:SPLIT_AT]):
        table.put(key, (number,))
    assert made.issuperset(map(id, table.parts))


def test_the_checker_finds_a_key_in_another_part() -> None:
    table = filled(KEYS[:SPLIT_AT])
    part = next(part for part in table.parts if KEYS[0] not in part)
    part[KEYS[0]] = 0
    with pytest.raises(AssertionError, match="each key is in its part"):
        table.check()


def test_the_checker_finds_a_plain_dict_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    table = filled(KEYS[:1000])
    monkeypatch.setattr(tables, "SPLIT_AT", 1000)
    with pytest.raises(AssertionError, match="a plain dict is small"):
        table.check()
