"""Two runs beside each other, and which differences are more than noise.

A run is cut into intervals, whose figures scatter. Two runs differ beyond noise in a figure if the means over their
intervals are further apart than `ERRORS_APART` standard errors of that difference, and by `LEAST_CHANGE` at least.
Neighbouring intervals resemble each other (a slow disk is slow for a while), which makes each say less than an
independent one would; so the number of intervals is reduced by how strongly they do. Anything that differs from run
to run but not within a run (another layout of memory, another process beside it) the intervals cannot show: repeat
both runs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Final, Literal

import msgspec

if TYPE_CHECKING:
    from haptera.cli.benchmark.result import Report, Result, Sample
    from haptera.cli.benchmark.settings import Settings

ERRORS_APART: Final = 4.0
LEAST_CHANGE: Final = 0.02
#: Fewer intervals than this, on either side, say nothing about how much they scatter.
SAMPLES_MIN: Final = 5

#: Of the second run against the first; ``unjudged`` where a run has but one figure, or too few intervals.
Verdict = Literal["better", "worse", "noise", "unjudged"]


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of both runs. ``ratio`` is second / first, None where the first is 0."""

    figure: str
    first: float
    second: float
    ratio: float | None
    verdict: Verdict


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """``settings`` are the settings in which the runs differ: they say whether the comparison means anything."""

    settings: dict[str, tuple[object, object]]
    lines: list[Line]


#: Figures with intervals: name, that of the run, that of an interval, whether more is better.
_SAMPLED: Final[tuple[tuple[str, Callable[[Result], float], Callable[[Sample], float], bool], ...]] = (
    ("operations_per_second", lambda r: r.operations_per_second, lambda s: s.operations_per_second, True),
    ("p50_us", lambda r: r.durations.p50_us, lambda s: s.p50_us, False),
    ("p99_us", lambda r: r.durations.p99_us, lambda s: s.p99_us, False),
)

_SINGLE: Final[tuple[tuple[str, Callable[[Result], float]], ...]] = (
    ("mean_us", lambda r: r.durations.mean_us),
    ("p90_us", lambda r: r.durations.p90_us),
    ("p99.9_us", lambda r: r.durations.p99_9_us),
    ("max_us", lambda r: r.durations.max_us),
    ("errors", lambda r: float(sum(r.errors.values()))),
    ("never_started", lambda r: float(r.never_started)),
)


def compare(first: Report, second: Report) -> Comparison:
    """Compare two runs."""
    lines = [
        _line(name, whole(first.result), whole(second.result), _verdict(first, second, part, more_is_better))
        for name, whole, part, more_is_better in _SAMPLED
    ]
    lines += [_line(name, whole(first.result), whole(second.result), "unjudged") for name, whole in _SINGLE]
    return Comparison(settings=_differences(first.settings, second.settings), lines=lines)


def _line(name: str, first: float, second: float, verdict: Verdict) -> Line:
    return Line(figure=name, first=first, second=second, ratio=second / first if first else None, verdict=verdict)


def _verdict(first: Report, second: Report, part: Callable[[Sample], float], more_is_better: bool) -> Verdict:
    # An interval in which nothing ended has a rate, 0, but no durations.
    before = [part(sample) for sample in first.result.samples if sample.operations_per_second or more_is_better]
    after = [part(sample) for sample in second.result.samples if sample.operations_per_second or more_is_better]
    if min(len(before), len(after)) < SAMPLES_MIN:
        return "unjudged"
    change = fmean(after) - fmean(before)
    error = math.hypot(standard_error(before), standard_error(after))
    if abs(change) <= ERRORS_APART * error or abs(change) < LEAST_CHANGE * fmean(before):
        return "noise"
    return "better" if (change > 0) == more_is_better else "worse"


def standard_error(samples: Sequence[float]) -> float:
    """How far the mean of ``samples``, a series in time, may be from the mean of a longer series."""
    mean = fmean(samples)
    deviations = [sample - mean for sample in samples]
    squares = math.fsum(each * each for each in deviations)
    if squares == 0:
        return 0.0
    likeness = math.fsum(one * other for one, other in itertools.pairwise(deviations)) / squares
    likeness = min(max(likeness, 0.0), 0.9)
    independent = len(samples) * (1 - likeness) / (1 + likeness)
    return math.sqrt(squares / (len(samples) - 1) / independent)


def _differences(first: Settings, second: Settings) -> dict[str, tuple[object, object]]:
    before, after = msgspec.structs.asdict(first), msgspec.structs.asdict(second)
    return {name: (before[name], after[name]) for name in before if before[name] != after[name]}
