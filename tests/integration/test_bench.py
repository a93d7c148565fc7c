"""`haptera bench`: each workload runs, and every mistake in its options is named. No test looks at a time."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import re
import signal
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import haptera
from haptera.cli.benchmark.benchmark_run import measure
from haptera.cli.benchmark.settings import Settings
from haptera.cli.client_command import Client
from haptera.errors import ConnectionLost
from haptera.testing import node, node_in_thread, proxy, virtual_clock
from tests.integration.commands import Ended, run
from tests.support.clocks import LoopClock

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from pathlib import Path

    from haptera.cli.benchmark.result import Report

FEW = ("--count", "200", "--warmup", "0", "--in-flight", "8", "--json")


@pytest.fixture(autouse=True)
def nothing_stays_frozen(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails a run that leaves objects frozen. Nothing is: thawed, all tests cost the collector a second each."""
    asked: list[str] = []
    for name in ("freeze", "unfreeze"):
        monkeypatch.setattr(gc, name, partial(asked.append, name))
    yield
    assert asked == ["freeze", "unfreeze"] * (len(asked) // 2)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with node_in_thread(listen="tcp") as url:
        yield url


def figures(ended: Ended) -> dict[str, Any]:
    assert ended.code == 0, ended.err
    report = json.loads(ended.out)
    assert report["format"] == "haptera-bench/1"
    result: dict[str, Any] = report["result"]
    assert result["errors"] == {}
    return result


@pytest.mark.parametrize("workload", ["read", "write", "mixed", "scan"])
@pytest.mark.parametrize("where", ["served", "embedded"])
def test_a_store_is_measured_and_nothing_is_left_in_it(workload: str, where: str, url: str) -> None:
    at = ("--url", url, "--connections", "2") if where == "served" else ("--embedded", "--durability", "os")
    ended = run("bench", workload, "--keys", "50", "--value-size", "100", *at, *FEW)
    assert ended.err == ""
    result = figures(ended)
    assert result["operations"] == 200
    assert result["value_bytes_per_second"] > 0
    if where == "served":
        assert run("count", "--url", url).text == "0\n"


def test_the_reads_of_a_mixed_workload_are_as_many_as_asked_for(url: str) -> None:
    result = figures(run("bench", "mixed", "--read-ratio", "1", "--keys", "10", "--url", url, *FEW))
    assert [(kind["name"], kind["operations"]) for kind in result["kinds"]] == [("read", 200), ("write", 0)]


def test_an_open_loop_and_a_zipf_distribution_are_taken(url: str) -> None:
    options = ("--rate", "4000", "--distribution", "zipf", "--theta", "1.1", "--keys", "20")
    assert figures(run("bench", "read", "--url", url, *options, *FEW))["never_started"] == 0


def test_a_server_process_is_measured_by_whoever_names_it_or_starts_one(short_path: Path) -> None:
    assert figures(run("bench", "echo", "--value-size", "64", *FEW))["operations"] == 200
    hosted = f"haptera+unix://{short_path}/b.sock"
    server = subprocess.Popen([sys.executable, "-m", "haptera", "bench", "--serve", hosted], stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        assert server.stdout.readline().decode() == f"{hosted}\n"
        result = figures(run("bench", "stream", "--url", hosted, "--rows", "20", "--connections", "2", *FEW))
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(10) == 0
        assert server.stdout is not None
        server.stdout.close()
    assert result["operations"] == 200
    assert result["rows_per_second"] == pytest.approx(20 * result["operations_per_second"])


def test_errors_are_shown_by_code_and_decide_the_exit_code(url: str) -> None:
    ended = run("bench", "echo", "--url", url, "--count", "20", "--warmup", "0")
    assert ended.code == 5
    assert "failed: UNKNOWN_SERVICE (3001)\t20\n" in ended.text


def test_two_results_are_compared(tmp_path: Path, url: str) -> None:
    files = []
    for keys in ("10", "20"):
        file = tmp_path / f"{keys}.json"
        file.write_bytes(run("bench", "read", "--keys", keys, "--url", url, *FEW).out)
        files.append(str(file))
    ended = run("bench", "--compare", *files)
    assert ended.code == 0
    assert "the runs differ in keys: 10 and 20" in ended.err
    assert ended.text.startswith("figure\tfirst\tsecond\tsecond/first\tsecond is\noperations_per_second\t")
    assert json.loads(run("bench", "--compare", *files, "--json").out)["settings"] == {"keys": [10, 20]}


def test_a_report_is_plain_lines_in_a_pipe_and_tables_on_a_terminal(url: str) -> None:
    arguments = ("bench", "mixed", "--url", url, "--count", "50", "--warmup", "0", "--keys", "10")
    plain = run(*arguments).text
    assert "operations\t50\n" in plain
    assert "\nall\t50\t" in plain
    shown = run(*arguments, terminal=True)
    assert shown.code == 0
    assert "p99.9" in shown.text


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
def test_no_number_is_broken_on_a_narrow_terminal(columns: int, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = run("bench", "mixed", "--url", url, "--count", "12345", "--warmup", "0", "--keys", "10", terminal=True)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown.text).splitlines()
    assert sum("12345" in line.split() for line in lines) == 2
    assert max(map(len, lines)) <= columns


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give one of WORKLOAD, --serve and --compare, not none"),
        (("read", "--serve", "haptera://127.0.0.1:0"), "not WORKLOAD and --serve"),
        (("read", "--read-ratio", "0.5"), "--read-ratio means nothing for read"),
        (("echo", "--embedded"), "--embedded means nothing for echo"),
        (("echo", "--keys", "5"), "--keys means nothing for echo"),
        (("read", "--rows", "5"), "--rows means nothing for read"),
        (("read", "--theta", "0.5"), "--theta means nothing without --distribution zipf"),
        (("read", "--durability", "os"), "--durability means nothing without --embedded"),
        (("read", "--embedded", "--connections", "2"), "it has no --url and one connection"),
        (("read", "--url", "haptera://app:secret@127.0.0.1"), "may not carry a password"),
        (("read", "--rate", "0"), "--rate"),
    ],
)
def test_a_mistake_in_the_options_is_a_usage_error(arguments: tuple[str, ...], said: str) -> None:
    ended = run("bench", *arguments)
    assert ended.code == 2
    assert said in " ".join(ended.err.split())
    assert "secret" not in ended.err


def test_a_file_that_is_no_result_is_a_usage_error(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text("{}")
    ended = run("bench", "--compare", str(file), str(file))
    assert ended.code == 2
    assert "is no result of `haptera bench --json`" in ended.err


def test_a_store_that_is_not_there_ends_with_3(unused_port: int) -> None:
    assert run("bench", "read", "--url", f"haptera://127.0.0.1:{unused_port}").code == 3


def settings(**changes: Any) -> Settings:
    usual = Settings(
        workload="write", target="", read_ratio=0.5, distribution="uniform", theta=0.99, value_size=10, keys=10, rows=1,
        connections=1, in_flight=4, rate=None, duration_s=30.0, count=None, warmup_s=0.0, seed=1, timeout_s=5.0,
    )  # fmt: skip
    return msgspec.structs.replace(usual, **changes)


@pytest.fixture
def on_the_loops_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("haptera.cli.benchmark.benchmark_run.RealClock", LoopClock)


class Errors(io.StringIO):
    """Standard error, which may be a terminal."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


def measure_at(url: str, run: Settings) -> Coroutine[Any, Any, tuple[Report, haptera.HapteraError | None]]:
    return measure(run, Client(url, run.timeout_s, as_json=False), embedded=None)


@pytest.mark.usefixtures("on_the_loops_clock")
@virtual_clock
async def test_a_run_has_a_result_even_if_the_store_is_gone_before_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    async with node(storage="memory", write_delay=0.001) as url, proxy(url) as through:
        run = asyncio.create_task(measure_at(through.url, settings()))
        await asyncio.sleep(1.0)
        through.refuse()
        through.sever()
        report, error = await run
    assert report.result.operations > 0
    assert isinstance(error, ConnectionLost)
    assert "keys under bench/" in capsys.readouterr().err


@pytest.mark.usefixtures("on_the_loops_clock")
@pytest.mark.parametrize("terminal", [True, False])
@virtual_clock
async def test_what_takes_long_before_and_behind_a_run_is_told_on_a_terminal(
    terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", errors := Errors(terminal=terminal))
    async with node(storage="memory", write_delay=2.5) as url:
        await measure_at(url, settings(workload="read", keys=10_000, count=1, timeout_s=60.0))
    text = errors.getvalue()
    if terminal:
        assert "\r\x1b[Kpreparing 10,000 keys: 0 are stored" in text
        assert "preparing 10,000 keys: 4,000 are stored" in text
        assert "\r\x1b[Kremoving 10,000 keys" in text
        assert text.endswith("\r\x1b[K"), "and nothing of it stays"
    else:
        assert text == ""


@pytest.mark.usefixtures("on_the_loops_clock")
@virtual_clock
async def test_what_takes_no_time_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", errors := Errors(terminal=True))
    async with node(storage="memory", write_delay=0.01) as url:
        await measure_at(url, settings(workload="read", keys=10_000, count=1))
    assert "keys" not in errors.getvalue()


@pytest.mark.usefixtures("on_the_loops_clock")
@pytest.mark.parametrize("at", [2.0, 20.0, 42.0], ids=["preparing", "measuring", "removing"])
@virtual_clock
async def test_an_interrupt_is_answered_at_once_with_what_is_left_behind(
    at: float, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = asyncio.get_running_loop()
    async with node(storage="memory", write_delay=5.0) as url:
        of = settings(workload="mixed", read_ratio=0.0, keys=2000, timeout_s=60.0)
        run = asyncio.create_task(measure_at(url, of))
        await asyncio.sleep(at)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert loop.time() - at <= 1.5
        (line,) = capsys.readouterr().err.splitlines()
        assert re.fullmatch(r"haptera: interrupted: keys under bench/[0-9a-f]{16}/ may have stayed behind", line)


@pytest.mark.usefixtures("on_the_loops_clock")
@pytest.mark.parametrize("workload", ["read", "write"])
@virtual_clock
async def test_an_interrupted_run_leaves_nothing_behind_that_is_removed_at_once(
    workload: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with node(storage="memory", write_delay=0.1) as url, haptera.connect(url) as db:
        run = asyncio.create_task(measure_at(url, settings(workload=workload, keys=20_000)))
        await asyncio.sleep(0.35)
        assert await db.count(prefix="bench/") > 0
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert await db.count() == 0
    assert capsys.readouterr().err == ""


def test_ctrl_c_while_keys_are_prepared_ends_with_130() -> None:
    with node_in_thread(listen="tcp") as url:
        command = [sys.executable, "-m", "haptera", "bench", "read", "--keys", "10000000", "--url", url]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as bench:
            while run("count", "--url", url).text == "0\n":
                assert bench.poll() is None
            bench.send_signal(signal.SIGINT)
            _, err = bench.communicate()
        assert bench.returncode == 130
        assert "Traceback" not in err
        if run("count", "--url", url).text != "0\n":
            assert "may have stayed behind" in err
