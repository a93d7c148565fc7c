"""The JSON document of a run, and the comparison of two."""

from __future__ import annotations

from random import Random

import msgspec
import pytest

from haptera.cli.benchmark.compare import Comparison, compare, standard_error
from haptera.cli.benchmark.load import Recorder
from haptera.cli.benchmark.result import Machine, Report, Sample, decode, result
from haptera.cli.benchmark.settings import Settings
from haptera.errors import ConfigurationError

SETTINGS = Settings(
    workload="mixed",
    target="haptera://127.0.0.1:7457",
    read_ratio=0.5,
    distribution="zipf",
    theta=0.99,
    value_size=256,
    keys=100,
    rows=100,
    connections=1,
    in_flight=50,
    rate=None,
    duration_s=2.0,
    count=None,
    warmup_s=0.0,
    seed=1,
    timeout_s=5.0,
)


def made(factor: float = 1.0, *, seed: int = 1, intervals: int = 20, scatter: float = 0.05) -> Report:
    """The report of a run whose operations take ``factor`` milliseconds, more or less by ``scatter``."""
    random = Random(seed)
    recorder = Recorder(["read", "write"], 0)
    now = 0
    while now < intervals * 100_000_000:
        took = round(1_000_000 * factor * random.uniform(1 - scatter, 1 + scatter))
        now += took
        recorder.ended(now, now - took, random.randrange(2), 256, 1)
    recorder.finish(now)
    recorder.errors["STORAGE_FULL (5001)"] = 2
    machine = Machine(python="CPython 3.11.7", platform="Linux", cpus=2, event_loop="asyncio", load_average=0.5)
    return Report(
        format="haptera-bench/1",
        haptera="0.1.0",
        ended_at_s=1.5,
        settings=SETTINGS,
        machine=machine,
        result=result(recorder),
    )


def test_a_report_is_read_back_as_it_was_written() -> None:
    report = made()
    assert decode(msgspec.json.encode(report), "a.json") == report


def test_the_fields_of_the_document_are_those_that_its_format_names() -> None:
    document = msgspec.json.decode(msgspec.json.encode(made()))
    assert document["format"] == "haptera-bench/1"
    assert set(document) == {"format", "haptera", "ended_at_s", "settings", "machine", "result"}
    assert set(document["settings"]) == set(Settings.__struct_fields__)
    assert set(document["machine"]) == {"python", "platform", "cpus", "event_loop", "load_average"}
    assert set(document["result"]) == {
        "seconds",
        "operations",
        "operations_per_second",
        "value_bytes_per_second",
        "rows_per_second",
        "errors",
        "never_started",
        "durations",
        "kinds",
        "samples",
    }
    assert set(document["result"]["durations"]) == {
        f"{name}_us" for name in ("mean", "min", "p50", "p90", "p99", "p99_9", "max")
    }
    assert [kind["name"] for kind in document["result"]["kinds"]] == ["read", "write"]
    assert set(document["result"]["samples"][0]) == {"start_s", "seconds", "operations_per_second", "p50_us", "p99_us"}


def test_the_figures_add_up() -> None:
    figures = made().result
    assert sum(kind.operations for kind in figures.kinds) == figures.operations
    assert figures.operations_per_second == pytest.approx(figures.operations / figures.seconds)
    assert figures.value_bytes_per_second == pytest.approx(256 * figures.operations_per_second)
    assert figures.durations.p50_us == pytest.approx(1000, rel=0.05)
    assert len(figures.samples) == 20


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[1]", b"\xff", b'{"format": "haptera-bench/2"}', b'{"format": "haptera-bench/1"}']
)
def test_anything_else_is_refused_with_the_name_of_the_file(data: bytes) -> None:
    with pytest.raises(ConfigurationError, match=r"a\.json is no result of `haptera bench --json`"):
        decode(data, "a.json")


def verdicts(comparison: Comparison) -> dict[str, str]:
    return {line.figure: line.verdict for line in comparison.lines}


def test_two_runs_of_the_same_differ_by_noise_alone() -> None:
    for seed in range(2, 12):
        found = verdicts(compare(made(seed=1, scatter=0.3), made(seed=seed, scatter=0.3)))
        assert [found[name] for name in ("operations_per_second", "p50_us", "p99_us")] == ["noise"] * 3


def test_a_slower_run_is_worse_and_a_faster_one_better() -> None:
    slower, faster = compare(made(), made(1.2, seed=2)), compare(made(), made(0.8, seed=2))
    assert {verdicts(slower)[name] for name in ("operations_per_second", "p50_us", "p99_us")} == {"worse"}
    assert {verdicts(faster)[name] for name in ("operations_per_second", "p50_us", "p99_us")} == {"better"}
    assert slower.lines[0].ratio == pytest.approx(1 / 1.2, rel=0.02)


def test_a_difference_below_two_per_cent_is_noise_however_exact_the_runs_are() -> None:
    found = verdicts(compare(made(scatter=0.0), made(1.01, scatter=0.0)))
    assert found["operations_per_second"] == "noise"


def test_too_few_intervals_and_single_figures_are_not_judged() -> None:
    found = verdicts(compare(made(intervals=3), made(2.0, intervals=20)))
    assert set(found.values()) == {"unjudged"}
    assert verdicts(compare(made(), made(2.0)))["max_us"] == "unjudged"


def test_intervals_in_which_nothing_ended_count_for_the_rate_and_not_for_durations() -> None:
    slow = made()
    stalled = [
        Sample(start_s=sample.start_s, seconds=0.1, operations_per_second=0.0, p50_us=0.0, p99_us=0.0)
        for sample in slow.result.samples[:10]
    ]
    samples = [*stalled, *slow.result.samples[10:]]
    half = msgspec.structs.replace(slow, result=msgspec.structs.replace(slow.result, samples=samples))
    assert verdicts(compare(slow, half))["p50_us"] == "noise"


def test_the_settings_in_which_two_runs_differ_are_named() -> None:
    other = msgspec.structs.replace(made(), settings=msgspec.structs.replace(SETTINGS, in_flight=1, theta=0.5))
    assert compare(made(), other).settings == {"in_flight": (50, 1), "theta": (0.99, 0.5)}
    assert compare(made(), made()).settings == {}


def test_samples_that_resemble_their_neighbours_say_less() -> None:
    alternating = [1.0, 2.0] * 20
    in_two_halves = [1.0] * 20 + [2.0] * 20
    assert standard_error(in_two_halves) > 3 * standard_error(alternating)
    assert standard_error([1.0] * 10) == 0.0
