"""Results and comparisons as a person reads them: tables on a terminal, tab-separated lines in a pipe."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from haptera.cli import output

if TYPE_CHECKING:
    from haptera.cli.benchmark.compare import Comparison, Verdict
    from haptera.cli.benchmark.result import Durations, Report

_VERDICTS: dict[Verdict, str] = {
    "better": "better",
    "worse": "WORSE",
    "noise": "within noise",
    "unjudged": "",
}


def show_report(report: Report) -> None:
    """Write the figures of a run, and doubts about them to standard error."""
    settings, result = report.settings, report.result
    loop = "closed loop" if settings.rate is None else f"open loop at {settings.rate:g}/s"
    rows = [
        ("workload", f"{settings.workload}, {loop}"),
        ("target", settings.target),
        ("seconds", f"{result.seconds:.2f}"),
        ("operations", str(result.operations)),
        ("operations/s", f"{result.operations_per_second:.1f}"),
        ("value MB/s", f"{result.value_bytes_per_second / 1e6:.2f}"),
    ]
    if settings.workload in {"scan", "stream"}:
        rows.append(("rows/s", f"{result.rows_per_second:.1f}"))
    rows += [(f"failed: {name}", str(count)) for name, count in result.errors.items()]
    if settings.rate is not None:
        rows.append(("never started", str(result.never_started)))
    _table(("figure", "value"), rows)
    durations = [("all", result.operations, result.durations)] if len(result.kinds) > 1 else []
    durations += [(kind.name, kind.operations, kind.durations) for kind in result.kinds]
    columns = ("duration, ms", "operations", "mean", "p50", "p90", "p99", "p99.9", "max")
    _table(columns, [(name, str(count), *_milliseconds(each)) for name, count, each in durations])
    if result.never_started:
        output.error_line(
            f"the target did not keep up with {settings.rate:g}/s: {result.never_started} operations were not "
            "started before the end, and the durations would be longer with them"
        )


def show_comparison(comparison: Comparison) -> None:
    """Write the figures of two runs beside each other."""
    for name, (first, second) in comparison.settings.items():
        output.error_line(f"the runs differ in {name}: {first} and {second}")
    rows = [
        (
            line.figure,
            _number(line.first),
            _number(line.second),
            "" if line.ratio is None else f"{line.ratio:.3f}",
            _VERDICTS[line.verdict],
        )
        for line in comparison.lines
    ]
    _table(("figure", "first", "second", "second/first", "second is"), rows)


def _milliseconds(durations: Durations) -> Iterable[str]:
    d = durations
    return (f"{us / 1000:.3f}" for us in (d.mean_us, d.p50_us, d.p90_us, d.p99_us, d.p99_9_us, d.max_us))


def _number(value: float) -> str:
    return f"{value:.0f}" if value == int(value) else f"{value:.1f}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if output.as_tables():
        lines: list[Sequence[str]] = [columns, *rows]
        turned: list[Sequence[str]] = list(zip(*lines, strict=True))
        # A number that is broken over two lines is read as two. Where there is no room, rows become columns.
        if shutil.get_terminal_size().columns < output.table_width(lines) > output.table_width(turned):
            lines = turned
        output.table(lines[0], lines[1:])
        return
    if len(columns) > 2:
        output.line("\t".join(columns))
    for row in rows:
        output.line("\t".join(row))
