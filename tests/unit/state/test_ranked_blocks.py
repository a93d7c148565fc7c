"""Values in the order in which they came, in blocks."""

from __future__ import annotations

import random

import pytest

from haptera.state.ranked_blocks import BLOCK_SIZE, RankedBlocks


def filled(values: int) -> RankedBlocks[str]:
    blocks: RankedBlocks[str] = RankedBlocks()
    for number in range(values):
        assert blocks.add(str(number)) == number
    return blocks


@pytest.mark.parametrize("values", [0, 1, BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 1, 3 * BLOCK_SIZE])
def test_values_keep_their_order_and_are_found_by_rank(values: int) -> None:
    blocks = filled(values)
    blocks.check()
    assert list(blocks.values()) == [str(number) for number in range(values)]
    assert all(blocks[number] == str(number) for number in range(values))


@pytest.mark.parametrize("values", [0, 1, BLOCK_SIZE, BLOCK_SIZE + 1, 3 * BLOCK_SIZE])
def test_the_oldest_is_found_after_any_is_taken_out(values: int) -> None:
    blocks, left = filled(values), dict.fromkeys(range(values))
    order = list(left)
    random.shuffle(order)
    for number, rank in enumerate(order):
        blocks.remove(rank)
        del left[rank]
        assert blocks.oldest() == (str(next(iter(left))) if left else None)
        if number % 64 == 0:
            blocks.check()
    assert list(blocks.values()) == []
    assert blocks.add("last") == values
    assert (blocks.oldest(), list(blocks.values())) == ("last", ["last"])
    blocks.check()


def test_a_block_whose_values_are_gone_is_gone() -> None:
    blocks = filled(10 * BLOCK_SIZE)
    for rank in range(1, 10 * BLOCK_SIZE):
        blocks.remove(rank)
    assert len(blocks._blocks) == 2, "the block of the first value, and the one that grows"
    blocks.check()


@pytest.mark.parametrize("size", [2, 50, BLOCK_SIZE, BLOCK_SIZE + 7])
def test_values_in_a_row_are_taken_out_together_over_the_ends_of_blocks(size: int) -> None:
    values = 3 * BLOCK_SIZE
    blocks, left = filled(values), list(range(values))
    while left:
        start = random.randrange(len(left))
        taken = left[start : start + size]
        blocks.remove_all(taken)
        del left[start : start + size]
        assert list(blocks.values()) == [str(number) for number in left]
        blocks.check()
    assert len(blocks._blocks) == 1, "the one that grows"
