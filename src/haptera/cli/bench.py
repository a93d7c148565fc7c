"""``haptera bench``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import click
import msgspec
from click.core import ParameterSource

from haptera.cli import output
from haptera.cli.benchmark.event_loop import run
from haptera.cli.benchmark.settings import MESSAGING, Settings, WorkloadName
from haptera.cli.client_command import Client, client_options
from haptera.cli.exit_codes import DONE
from haptera.cli.failures import exit_code
from haptera.cli.numbers import Number
from haptera.key_rules import VALUE_SIZE_MAX

if TYPE_CHECKING:
    from haptera.peer import Server

KEYS_MAX: Final = 10_000_000
CONNECTIONS_MAX: Final = 10_000
IN_FLIGHT_MAX: Final = 10_000
DEFAULT_SECONDS: Final = 10.0

STORE: Final = frozenset({"read", "write", "mixed", "scan"})

#: Options that only some workloads have: to take one elsewhere, and do nothing with it, would be to mislead.
MEANS_SOMETHING_FOR: Final[dict[str, frozenset[str]]] = {
    "read_ratio": frozenset({"mixed"}),
    "distribution": STORE,
    "theta": STORE,
    "keys": STORE,
    "rows": frozenset({"scan", "stream"}),
    "embedded": STORE,
    "durability": STORE,
}


@click.command()
@click.argument("workload", required=False, type=click.Choice(["read", "write", "mixed", "scan", "echo", "stream"]))
@click.option("--read-ratio", type=Number(0, 1), default=0.95, show_default=True, help="The part of reads in mixed.")
@click.option(
    "--distribution",
    type=click.Choice(["uniform", "zipf"]),
    default="uniform",
    show_default=True,
    help="How keys are drawn.",
)
@click.option(
    "--theta",
    type=Number(0, 100, min_open=True),
    default=0.99,
    show_default=True,
    help="The exponent of zipf: the k-th key comes k^theta times less often than the first.",
)
@click.option(
    "--value-size", type=click.IntRange(0, VALUE_SIZE_MAX), default=256, show_default=True, help="Bytes of a value."
)
@click.option("--keys", type=click.IntRange(1, KEYS_MAX), default=10_000, show_default=True, help="Different keys.")
@click.option(
    "--rows", type=click.IntRange(1, 1_000_000), default=100, show_default=True, help="Rows of one scan or stream."
)
@click.option("--connections", type=click.IntRange(1, CONNECTIONS_MAX), default=1, show_default=True)
@click.option(
    "--in-flight",
    type=click.IntRange(1, IN_FLIGHT_MAX),
    default=50,
    show_default=True,
    help="Operations under way at once on each connection; in an open loop the most.",
)
@click.option(
    "--rate",
    type=Number(0, min_open=True),
    metavar="N",
    help="Open loop: start N operations a second, and time each from its planned start.",
)
@click.option(
    "--duration",
    type=Number(0, min_open=True),
    metavar="SECONDS",
    help=f"How long to measure. [{DEFAULT_SECONDS:g}, or until --count]",
)
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after N operations.")
@click.option(
    "--warmup",
    type=Number(0),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Load before the measurement.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="The seed of keys, values and choices.")
@click.option("--embedded", is_flag=True, help="A store made in this process for the run, in the temporary directory.")
@click.option(
    "--durability",
    type=click.Choice(["sync", "os"]),
    default="sync",
    show_default=True,
    help="Durability of the embedded store.",
)
@click.option("--serve", metavar="URL", help="Host the service of echo and stream there, until Ctrl-C.")
@click.option(
    "--compare",
    nargs=2,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE FILE",
    help="Compare two results of --json: the second with the first.",
)
@client_options()
@click.pass_context
def command(
    ctx: click.Context,
    /,
    client: Client,
    workload: WorkloadName | None,
    serve: str | None,
    compare: tuple[Path, Path] | None,
    **options: Any,
) -> int:
    """Measure a store, or the messaging library.

    read, write, mixed and scan (pages of --rows entries from a drawn key) use the store that other commands use, under
    keys of their own, bench/…, which are removed at the end; or the store of --embedded. echo (one answer) and stream
    (--rows items) call the service that `haptera bench --serve URL` hosts, named with --url; without it a process of
    its own hosts it for the run, at a Unix socket.

    Without --rate as many operations as --in-flight allows are under way all the time (closed loop). All load comes
    from this one process, which is often the slower side: see whether its core is busy.

    --compare marks the figures in which two runs differ by more than their intervals scatter.

    Exit codes: 0 measured without an error; else that of the most frequent error.
    """
    chosen = [name for name, value in {"WORKLOAD": workload, "--serve": serve, "--compare": compare}.items() if value]
    if len(chosen) != 1:
        raise click.UsageError(f"give one of WORKLOAD, --serve and --compare, not {' and '.join(chosen) or 'none'}")
    if compare is not None:
        return client.run_shown(lambda: _compare(compare, client.as_json))
    if serve is not None:
        return client.run_shown(lambda: _serve(serve))
    assert workload is not None
    _check(ctx, workload, client.url, options)
    embedded = cast("Literal['sync', 'os']", options["durability"]) if options["embedded"] else None
    return client.run_shown(lambda: _measure(_settings(workload, client, options), client, embedded))


def _check(ctx: click.Context, workload: WorkloadName, url: str | None, options: dict[str, Any]) -> None:
    def given(name: str) -> bool:
        return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE

    for name, workloads in MEANS_SOMETHING_FOR.items():
        if workload not in workloads and given(name):
            raise click.UsageError(f"--{name.replace('_', '-')} means nothing for {workload}")
    if given("theta") and options["distribution"] != "zipf":
        raise click.UsageError("--theta means nothing without --distribution zipf")
    if given("durability") and not options["embedded"]:
        raise click.UsageError("--durability means nothing without --embedded: a served store has its own")
    if options["embedded"] and (url is not None or options["connections"] != 1):
        raise click.UsageError("--embedded is in this process: it has no --url and one connection")


def _settings(workload: WorkloadName, client: Client, options: dict[str, Any]) -> Settings:
    duration = options["duration"]
    if duration is None and options["count"] is None:
        duration = DEFAULT_SECONDS
    return Settings(
        workload=workload,
        target=_target(workload, client.url, options),
        read_ratio=options["read_ratio"],
        distribution=options["distribution"],
        theta=options["theta"],
        value_size=options["value_size"],
        keys=options["keys"],
        rows=options["rows"],
        connections=options["connections"],
        in_flight=options["in_flight"],
        rate=options["rate"],
        duration_s=duration,
        count=options["count"],
        warmup_s=options["warmup"],
        seed=options["seed"],
        timeout_s=client.timeout,
    )


def _target(workload: WorkloadName, url: str | None, options: dict[str, Any]) -> str:
    """The run's target, safe to show."""
    from haptera.client import shown_url

    if options["embedded"]:
        return f"embedded, {options['durability']}"
    if workload in MESSAGING and url is None:
        return "another process, Unix socket"
    return shown_url(url)


def _measure(settings: Settings, client: Client, embedded: Literal["sync", "os"] | None) -> int:
    from haptera.cli.benchmark.benchmark_run import measure
    from haptera.cli.benchmark.result_tables import show_report

    report, error = run(measure(settings, client, embedded=embedded))
    if client.as_json:
        output.write(msgspec.json.encode(report) + b"\n")
    else:
        show_report(report)
    return DONE if error is None else exit_code(error)


def _compare(files: tuple[Path, Path], as_json: bool) -> int:
    from haptera.cli.benchmark.compare import compare
    from haptera.cli.benchmark.result import decode
    from haptera.cli.benchmark.result_tables import show_comparison

    first, second = (decode(file.read_bytes(), str(file)) for file in files)
    comparison = compare(first, second)
    if as_json:
        output.json_line(comparison)
    else:
        show_comparison(comparison)
    return DONE


def _serve(url: str) -> int:
    from haptera.cli.benchmark.service import serve

    def announce(server: Server) -> None:
        output.line(server.url)
        output.flush()

    run(serve(url, announce))
    return DONE
