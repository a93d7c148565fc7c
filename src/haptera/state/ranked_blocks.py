"""Values in the order in which they came, of which any may be taken out, all in short steps.

A value has a *rank*, the number of values that came before it. The values of `BLOCK_SIZE` ranks in turn share a
*block*, a list, in which a value that is taken out leaves a gap; a block of gaps alone goes. So nothing ever grows in a
single step of all values. An OrderedDict keeps an order as well, in one table, which moves all its keys when it is
full: 26 ms at 350,000, in which a node answers no request.

A block that keeps a single value keeps its room. At worst that is 8 bytes for each value that came since the oldest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeVar

from haptera.state.invariants import require

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ValueT = TypeVar("ValueT")

_BLOCK_BITS: Final = 9
#: Ranks of a block. The table of the blocks grows in steps too: at 50,000 changes a second, each of which is remembered
#: for ten minutes, it has 58,000 blocks and grows in 3 ms.
BLOCK_SIZE: Final = 1 << _BLOCK_BITS
_PLACE: Final = BLOCK_SIZE - 1


class _Block(Generic[ValueT]):
    """The values of a block in the order of their ranks, the number of gaps, and a place before which all are gaps."""

    __slots__ = ("gaps", "start", "values")

    def __init__(self) -> None:
        self.values: list[ValueT | None] = []
        self.gaps = 0
        self.start = 0


class RankedBlocks(Generic[ValueT]):
    """Values by rank, oldest first."""

    __slots__ = ("_blocks", "_newest", "_next_rank")

    def __init__(self) -> None:
        self._next_rank = 0
        # Blocks by the higher bits of their ranks. The last one is not full, and alone may have gaps only.
        self._blocks: dict[int, _Block[ValueT]] = {}
        # The values of the last block.
        self._newest = self._begin(0)

    def add(self, value: ValueT) -> int:
        """Add a value, and return its rank."""
        self._newest.append(value)
        rank = self._next_rank
        self._next_rank = following = rank + 1
        if not following & _PLACE:
            self._newest = self._begin(following)
        return rank

    def __getitem__(self, rank: int) -> ValueT:
        value = self._blocks[rank >> _BLOCK_BITS].values[rank & _PLACE]
        assert value is not None
        return value

    def remove(self, rank: int) -> None:
        """Take out the value of ``rank``, which is there."""
        self.remove_all((rank,))

    def remove_all(self, ranks: Sequence[int]) -> None:
        """Take out the values of some ranks, each of which is there."""
        blocks = self._blocks
        if len(ranks) > 1 and ranks == list(range(ranks[0], ranks[0] + len(ranks))):
            # In a row, as they came: each block is changed once.
            rank, stop = ranks[0], ranks[-1] + 1
            while rank < stop:
                number, place = rank >> _BLOCK_BITS, rank & _PLACE
                count = min(stop - rank, BLOCK_SIZE - place)
                block = blocks[number]
                block.values[place : place + count] = [None] * count
                block.gaps = gaps = block.gaps + count
                if gaps == BLOCK_SIZE:
                    del blocks[number]
                rank += count
            return
        for rank in ranks:
            number = rank >> _BLOCK_BITS
            block = blocks[number]
            block.values[rank & _PLACE] = None
            block.gaps = gaps = block.gaps + 1
            if gaps == BLOCK_SIZE:
                del blocks[number]

    def oldest(self) -> ValueT | None:
        """The oldest value; None if there is none."""
        for block in self._blocks.values():
            for place in range(block.start, len(block.values)):
                value = block.values[place]
                if value is not None:
                    block.start = place
                    return value
        return None

    def values(self) -> Iterator[ValueT]:
        """The values, oldest first. They must not change meanwhile."""
        for block in self._blocks.values():
            for value in block.values:
                if value is not None:
                    yield value

    def _begin(self, rank: int) -> list[ValueT | None]:
        block = self._blocks[rank >> _BLOCK_BITS] = _Block[ValueT]()
        return block.values

    def check(self) -> None:
        """Raise ``AssertionError`` with the invariant that does not hold."""
        numbers = list(self._blocks)
        last = self._next_rank >> _BLOCK_BITS
        require(
            numbers == sorted(numbers) and numbers[-1] == last, "blocks are in order, the one of the next rank last"
        )
        require(self._blocks[last].values is self._newest, "values are added to the last block")
        require(len(self._newest) == self._next_rank & _PLACE, "the next rank is the next place of the last block")
        for number, block in self._blocks.items():
            require(number == last or len(block.values) == BLOCK_SIZE, "no other block grows")
            require(block.values.count(None) == block.gaps < BLOCK_SIZE, "gaps are counted, and a block of gaps goes")
            require(all(value is None for value in block.values[: block.start]), "no value is before the start")
