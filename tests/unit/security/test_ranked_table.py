"""A table with a bound, in which new entries do not push out those of another rank."""

from __future__ import annotations

from haptera.security.ranked_table import RankedTable


def keys(table: RankedTable[str, int], *names: str, now: float = 0.0) -> str:
    return "".join(name for name in names if table.get(name, now) is not None)


def test_an_entry_is_there_until_its_time_is_over() -> None:
    table: RankedTable[str, int] = RankedTable(2, 3)
    table.put("a", 1, 0, 5.0, 0.0)
    assert table.get("a", 4.9) == 1
    assert table.get("a", 5.0) is None
    assert len(table) == 0
    assert table.get("a", 0.0) is None


def test_the_oldest_of_the_lowest_rank_goes_first() -> None:
    table: RankedTable[str, int] = RankedTable(3, 3)
    for name, rank in (("a", 2), ("b", 1), ("c", 1), ("d", 0)):
        table.put(name, 0, rank, 9.0, 0.0)
    assert keys(table, "a", "b", "c", "d") == "acd"
    table.put("e", 0, 0, 9.0, 0.0)
    table.put("f", 0, 7, 9.0, 0.0)
    assert keys(table, "a", "b", "c", "d", "e", "f") == "acf"


def test_an_entry_whose_time_is_over_goes_before_any_other() -> None:
    table: RankedTable[str, int] = RankedTable(2, 3)
    table.put("a", 0, 2, 5.0, 0.0)
    table.put("b", 0, 0, 9.0, 0.0)
    table.put("c", 0, 0, 9.0, 6.0)
    assert keys(table, "a", "b", "c", now=6.0) == "bc"


def test_an_entry_that_is_put_again_is_the_newest_and_takes_no_other_place() -> None:
    table: RankedTable[str, int] = RankedTable(2, 2)
    table.put("a", 1, 0, 9.0, 0.0)
    table.put("b", 1, 0, 9.0, 0.0)
    table.put("a", 2, 0, 9.0, 0.0)
    assert (len(table), table.get("a", 0.0), table.get("b", 0.0)) == (2, 2, 1)
    table.put("c", 1, 0, 9.0, 0.0)
    assert keys(table, "a", "b", "c") == "ac"
    table.remove("a")
    table.remove("a")
    assert keys(table, "a", "b", "c") == "c"
