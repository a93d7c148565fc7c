"""Which keys are drawn: the distributions are what they are called."""

from __future__ import annotations

import math
from collections import Counter
from random import Random

import pytest

from haptera.cli.benchmark.key_choice import Keys, Zipf

DRAWS = 20_000


def chi_square(counts: Counter[int], expected: dict[int, float]) -> tuple[float, float]:
    """The statistic, and a bound that it stays below with a probability of about 1 - 10**-6."""
    pooled: list[tuple[float, float]] = []
    observed_rest = expected_rest = 0.0
    for value, share in expected.items():
        observed_rest += counts[value]
        expected_rest += share * DRAWS
        if expected_rest >= 10:  # ranks too rare to count alone are counted together
            pooled.append((observed_rest, expected_rest))
            observed_rest = expected_rest = 0.0
    statistic = sum((observed - share) ** 2 / share for observed, share in pooled)
    freedom = len(pooled) - 1
    # Wilson and Hilferty's approximation of the quantile.
    return statistic, freedom * (1 - 2 / (9 * freedom) + 4.75 * math.sqrt(2 / (9 * freedom))) ** 3


@pytest.mark.parametrize("theta", [0.3, 0.99, 1.0, 1.0000001, 1.5, 3.0])
@pytest.mark.parametrize("count", [2, 10, 1000])
def test_zipf_draws_each_rank_as_often_as_its_formula_says(theta: float, count: int) -> None:
    random = Random(2024)
    zipf = Zipf(count, theta)
    counts = Counter(zipf.rank(random.random) for _ in range(DRAWS))
    weights = {rank: rank**-theta for rank in range(1, count + 1)}
    total = math.fsum(weights.values())
    statistic, bound = chi_square(counts, {rank: weight / total for rank, weight in weights.items()})
    assert set(counts) <= set(weights)
    assert statistic < bound


def test_zipf_of_one_rank_draws_that() -> None:
    assert {Zipf(1, 0.99).rank(Random(1).random) for _ in range(10)} == {1}


def test_zipf_over_ten_million_ranks_stays_within_them() -> None:
    random = Random(7)
    zipf = Zipf(10_000_000, 0.99)
    drawn = [zipf.rank(random.random) for _ in range(2000)]
    assert all(1 <= rank <= 10_000_000 for rank in drawn)
    assert max(drawn) > 1_000_000


@pytest.mark.parametrize(("count", "theta"), [(0, 1.0), (10, 0.0), (10, -1.0), (10, math.inf), (10, math.nan)])
def test_zipf_refuses_what_is_no_distribution(count: int, theta: float) -> None:
    with pytest.raises(ValueError, match="Zipf"):
        Zipf(count, theta)


def test_uniform_keys_come_equally_often() -> None:
    keys, random = Keys("p/", 100, "uniform", 1.0), Random(5)
    counts = Counter(keys.number(random) for _ in range(DRAWS))
    statistic, bound = chi_square(counts, dict.fromkeys(range(100), 0.01))
    assert statistic < bound


@pytest.mark.parametrize("count", [1, 2, 3, 10, 97, 1000, 1024])
def test_popular_keys_are_scattered_over_all_keys(count: int) -> None:
    keys = Keys("p/", count, "zipf", 0.99)
    assert {rank * keys._step % count for rank in range(1, count + 1)} == set(range(count))
    if count >= 97:
        assert abs(keys._step - 2 * keys._step % count) > count // 10


def test_a_seed_draws_the_same_keys_again() -> None:
    keys = Keys("p/", 1000, "zipf", 0.99)
    one, other = Random("1/0"), Random("1/0")
    assert [keys.draw(one) for _ in range(50)] == [keys.draw(other) for _ in range(50)]


def test_keys_are_the_prefix_and_a_number_of_fixed_length() -> None:
    assert Keys("bench/x/", 10, "uniform", 1.0).key(7) == "bench/x/000000000007"
