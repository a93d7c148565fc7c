"""The result of a run, and the JSON document that it is written as."""

from __future__ import annotations

import os
import platform
import time
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from haptera.cli.benchmark.event_loop import loop_name
from haptera.cli.benchmark.load import NS, Recorder, merged
from haptera.cli.benchmark.settings import Settings
from haptera.errors import ConfigurationError
from haptera.version import __version__

if TYPE_CHECKING:
    from haptera.cli.benchmark.histogram import Histogram

#: Names the form of the document; another number where a reader of this one would go wrong.
FORMAT: Final = "haptera-bench/1"

PERCENTS: Final = (50.0, 90.0, 99.0, 99.9)


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Times are in the unit that ends a name: s, or us for microseconds."""


class Durations(_Part, frozen=True):
    """How long operations took. Percentiles are at most 0.1 % too high."""

    mean_us: float
    min_us: float
    p50_us: float
    p90_us: float
    p99_us: float
    p99_9_us: float
    max_us: float


class Kind(_Part, frozen=True):
    """One kind of operation of a workload."""

    name: str
    operations: int
    operations_per_second: float
    durations: Durations


class Sample(_Part, frozen=True):
    """A stretch of the run, from ``start_s`` after its beginning."""

    start_s: float
    seconds: float
    operations_per_second: float
    p50_us: float
    p99_us: float


class Machine(_Part, frozen=True):
    """Where the run was made. ``load_average`` is that of the last minute, at the end of the run."""

    python: str
    platform: str
    cpus: int
    event_loop: str
    load_average: float | None


class Result(_Part, frozen=True):
    """The figures. ``never_started`` counts operations that an open loop should have started before its end, and
    could not.
    """

    seconds: float
    operations: int
    operations_per_second: float
    value_bytes_per_second: float
    rows_per_second: float
    errors: dict[str, int]
    never_started: int
    durations: Durations
    kinds: list[Kind]
    samples: list[Sample]


class Report(_Part, frozen=True):
    """The object that ``haptera bench --json`` writes."""

    format: Literal["haptera-bench/1"]
    haptera: str
    ended_at_s: float
    settings: Settings
    machine: Machine
    result: Result


def report(settings: Settings, recorder: Recorder) -> Report:
    """The report of a run that has just ended."""
    return Report(
        format=FORMAT,
        haptera=__version__,
        ended_at_s=round(time.time(), 3),
        settings=settings,
        machine=_machine(),
        result=result(recorder),
    )


def result(recorder: Recorder) -> Result:
    """The figures of a recorder."""
    seconds = max((recorder.end - recorder.start) / NS, 1e-9)
    durations = recorder.durations()
    return Result(
        seconds=seconds,
        operations=recorder.operations,
        operations_per_second=recorder.operations / seconds,
        value_bytes_per_second=recorder.size / seconds,
        rows_per_second=recorder.rows / seconds,
        errors=dict(recorder.errors.most_common()),
        never_started=recorder.never_started,
        durations=_durations(merged(durations)),
        kinds=[
            Kind(
                name=name,
                operations=histogram.count,
                operations_per_second=histogram.count / seconds,
                durations=_durations(histogram),
            )
            for name, histogram in zip(recorder.kinds, durations, strict=True)
        ],
        samples=_samples(recorder),
    )


def decode(data: bytes, name: str) -> Report:
    """Read the file ``name``, which ``--json`` wrote. Raises ``ConfigurationError`` for anything else."""
    try:
        return msgspec.json.decode(data, type=Report)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{name} is no result of `haptera bench --json`: {error}") from None


def _durations(histogram: Histogram) -> Durations:
    p50, p90, p99, p99_9 = histogram.percentiles(PERCENTS)
    return Durations(
        mean_us=round(histogram.mean / 1000, 3),
        min_us=histogram.min / 1000,
        p50_us=p50 / 1000,
        p90_us=p90 / 1000,
        p99_us=p99 / 1000,
        p99_9_us=p99_9 / 1000,
        max_us=histogram.max / 1000,
    )


def _samples(recorder: Recorder) -> list[Sample]:
    samples = []
    for interval in recorder.intervals:
        histogram = interval.all()
        seconds = (interval.end - interval.start) / NS
        p50, p99 = histogram.percentiles((50.0, 99.0))
        samples.append(
            Sample(
                start_s=round((interval.start - recorder.start) / NS, 6),
                seconds=seconds,
                operations_per_second=histogram.count / seconds,
                p50_us=p50 / 1000,
                p99_us=p99 / 1000,
            )
        )
    return samples


def _machine() -> Machine:
    return Machine(
        python=f"{platform.python_implementation()} {platform.python_version()}",
        platform=platform.platform(),
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        event_loop=loop_name(),
        load_average=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    )
