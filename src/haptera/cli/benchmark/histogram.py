"""Latencies in buckets whose width grows with the value: any number of them in bounded memory, to a stated precision.

A value up to 2047 ns has a bucket of its own; above that each power of two is cut into 1024 equal buckets. So a bucket
is never wider than 1/1024 of the values in it, and there are at most 36,864 of them, for any values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

#: Each power of two is cut into 2**SUB_BITS buckets.
SUB_BITS: Final = 10

#: A percentile is at most this part above the true one, and never below it: just under 0.1 %.
PRECISION: Final = 2.0**-SUB_BITS

#: Some 9.7 hours in nanoseconds. Longer times count as this long, so that the number of buckets is bounded.
VALUE_MAX: Final = 2**45 - 1


class Histogram:
    """Counts of durations in nanoseconds. ``count``, ``total``, ``min`` and ``max`` are exact."""

    __slots__ = ("_buckets", "count", "max", "min", "total")

    def __init__(self) -> None:
        self.count: int = 0
        self.total: int = 0
        self.min: int = 0
        self.max: int = 0
        self._buckets: dict[int, int] = {}

    def record(self, value: int) -> None:
        """Count a duration of ``value`` ns; one below 0, which only a clock that goes back gives, counts as 0."""
        value = min(max(value, 0), VALUE_MAX)
        shift = value.bit_length() - SUB_BITS - 1
        index = value if shift <= 0 else (shift << SUB_BITS) + (value >> shift)
        self._buckets[index] = self._buckets.get(index, 0) + 1
        if self.count == 0 or value < self.min:
            self.min = value
        self.max = max(self.max, value)
        self.count += 1
        self.total += value

    def add(self, other: Histogram) -> None:
        """Count all that ``other`` has counted."""
        if other.count == 0:
            return
        for index, count in other._buckets.items():
            self._buckets[index] = self._buckets.get(index, 0) + count
        self.min = min(self.min, other.min) if self.count else other.min
        self.max = max(self.max, other.max)
        self.count += other.count
        self.total += other.total

    @property
    def mean(self) -> float:
        """The exact mean in ns; 0.0 where nothing was counted."""
        return self.total / self.count if self.count else 0.0

    def percentiles(self, percents: Sequence[float]) -> list[int]:
        """For each of ``percents``, which ascend, the least value in ns that so many per cent do not exceed.

        It is the upper end of a bucket, and so may be too large by `PRECISION`, but never too small; 100 is the
        maximum. All are 0 where nothing was counted.
        """
        found: list[int] = []
        buckets = iter(sorted(self._buckets.items()))
        passed, index = 0, 0
        for percent in percents:
            # Nearest rank. In whole thousandths of a per cent, because 99.9 % of 1000 is 999, not 999.0000000000001.
            wanted = -(-round(percent * 1000) * self.count // 100_000)
            while passed < wanted:
                index, count = next(buckets)
                passed += count
            found.append(min(_upper(index), self.max))
        return found


def _upper(index: int) -> int:
    """The largest value that a bucket takes."""
    if index < 2 << SUB_BITS:
        return index
    shift = (index >> SUB_BITS) - 1
    return ((index - (shift << SUB_BITS) + 1) << shift) - 1
