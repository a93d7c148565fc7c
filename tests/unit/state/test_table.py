"""The table of the state: a dict that grows in short steps."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haptera.state.history import History
from haptera.state.kv import Kv
from haptera.state.table import PARTS, Table

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
        st.tuples(st.just("put_first"), keys, st.integers()),
        st.tuples(st.just("remove"), keys, st.none()),
    ),
    max_size=40,
)


@given(changes)
def test_a_table_is_a_dict(changes: list[tuple[str, str, Any]]) -> None:
    table: Table[int] = Table()
    model: dict[str, int] = {}
    for name, key, value in changes:
        if name == "put":
            table.put(key, value)
            model[key] = value
        elif name == "put_first":
            table.put_first(key, value)
            model.setdefault(key, value)
        elif key in model:
            table.remove(key)
            del model[key]
        else:
            with pytest.raises(KeyError):
                table.remove(key)
        assert table.get(key) == model.get(key)
        assert (key in table) == (key in model)
        table.check()
    assert len(table) == len(model)
    assert sorted(table) == sorted(model)
    assert dict(table.items()) == model
    assert sorted(table.values()) == sorted(model.values())


def test_no_part_grows_with_more_than_its_share_of_the_keys() -> None:
    table = filled()
    assert len(table.parts) == PARTS
    assert longest(table) <= len(KEYS) * PART_OF_1000_MAX // 1000
    table.check()


def test_the_keys_of_a_part_differ_in_the_bits_by_which_a_dict_looks_for_them() -> None:
    part = max(filled().parts, key=len)
    slots = 1 << (2 * len(part)).bit_length()
    assert len({hash(key) % slots for key in part}) > len(part) // 2


@pytest.mark.parametrize("tables", [lambda: [Kv().entries], lambda: [History(print, print).records]])
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
    while table.free(1000):
        pass
    assert all(part.__sizeof__() == {}.__sizeof__() for part in table.parts)


def test_all_parts_are_followed_by_the_garbage_collector_when_they_are_to_be_frozen() -> None:
    table: Table[tuple[int, ...]] = Table()
    for key in KEYS[:100]:
        table.put(key, (1,))
    gc.collect()
    table.track((*[2],))
    assert all(map(gc.is_tracked, table.parts))
    assert len(table) == 100
    table.check()


def test_the_checker_finds_a_key_in_another_part() -> None:
    table = filled(KEYS[:1000])
    part = next(part for part in table.parts if KEYS[0] not in part)
    part[KEYS[0]] = 0
    with pytest.raises(AssertionError, match="each key is in its part"):
        table.check()
