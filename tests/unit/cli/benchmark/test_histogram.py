"""The histogram: its percentiles are within its stated precision, its memory is bounded."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haptera.cli.benchmark.histogram import PRECISION, VALUE_MAX, Histogram

PERCENTS = (0.001, 10.0, 50.0, 90.0, 99.0, 99.9, 99.99, 100.0)


def filled(values: list[int]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


@given(st.lists(st.integers(0, VALUE_MAX), min_size=1, max_size=300))
def test_a_percentile_is_never_too_low_and_at_most_the_precision_too_high(values: list[int]) -> None:
    ordered = sorted(values)
    for percent, found in zip(PERCENTS, filled(values).percentiles(PERCENTS), strict=True):
        true = ordered[math.ceil(round(percent * 1000) * len(values) / 100_000) - 1]
        assert true <= found <= true * (1 + PRECISION)


@given(st.lists(st.integers(0, VALUE_MAX), max_size=100), st.lists(st.integers(0, VALUE_MAX), max_size=100))
def test_adding_a_histogram_is_recording_its_values(ours: list[int], theirs: list[int]) -> None:
    joined, whole = filled(ours), filled(ours + theirs)
    joined.add(filled(theirs))
    assert joined.percentiles(PERCENTS) == whole.percentiles(PERCENTS)
    assert (joined.count, joined.total, joined.min, joined.max) == (whole.count, whole.total, whole.min, whole.max)


def test_small_values_are_exact() -> None:
    values = list(range(2048))
    assert filled(values).percentiles((50.0, 75.0, 100.0)) == [1023, 1535, 2047]


def test_nothing_recorded_is_all_zero() -> None:
    empty = Histogram()
    assert empty.percentiles((50.0, 100.0)) == [0, 0]
    assert (empty.mean, empty.min, empty.max) == (0.0, 0, 0)


def test_99_9_per_cent_of_a_thousand_is_the_999th() -> None:
    assert filled(list(range(1, 1001))).percentiles((99.9, 100.0)) == [999, 1000]


@pytest.mark.parametrize(("value", "counted"), [(-5, 0), (VALUE_MAX + 1, VALUE_MAX), (2**80, VALUE_MAX)])
def test_what_is_out_of_range_counts_as_the_nearest_value(value: int, counted: int) -> None:
    histogram = filled([value])
    assert histogram.percentiles((50.0,)) == [counted]
    assert histogram.max == counted


def test_the_number_of_buckets_is_bounded_however_much_is_recorded() -> None:
    random = Random(1)
    histogram = filled([int(2 ** random.uniform(0, 60)) for _ in range(100_000)])
    assert len(histogram._buckets) <= 36 * 1024
    assert max(histogram._buckets) < 36 * 1024
