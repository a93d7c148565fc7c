"""The sorted index of the keys, by itself."""

from __future__ import annotations

from itertools import product

import pytest

from haptera.state.index import KeyIndex
from haptera.state.key_ranges import KeyRange

KEYS = ["a", "b", "c", "d"]
RANGES = [
    KeyRange(low, low_open, high)
    for low, low_open, high in product(["", *KEYS, "e"], [False, True], [*KEYS, "e", None])
]


@pytest.mark.parametrize("ghosts", [[], ["b"], ["a", "d"]])
def test_a_count_is_of_the_keys_that_are_given_without_ghosts(ghosts: list[str]) -> None:
    index = KeyIndex(KEYS)
    for ghost in ghosts:
        index.remove(ghost, ghost=True)
    for span in RANGES:
        found = list(index.iterate(span))
        assert found == [
            key
            for key in KEYS
            if (key > span.low if span.low_open else key >= span.low) and (span.high is None or key < span.high)
        ]
        assert list(index.iterate(span, reverse=True)) == found[::-1]
        assert index.width(span) == len(found)
        assert index.count(span) == len([key for key in found if key not in ghosts])
