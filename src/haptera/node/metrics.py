"""The metrics of a node: one registry, the names of spec/metrics.toml.

Counters are plain attributes that the hot path adds to; gauges that something else knows already (the number of keys,
the log's size) are asked for only when the metrics are read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

COUNTERS = (
    "connections_total",
    "kv_failures_total",
    "kv_reads_total",
    "kv_replayed_total",
    "kv_scans_total",
    "kv_writes_total",
    "log_bytes_total",
    "log_commands_total",
    "log_entries_total",
    "log_full_total",
    "log_write_seconds_total",
    "scans_expired_total",
    "write_wait_seconds_total",
    "writes_dropped_total",
    "writes_refused_total",
)

GAUGES = (
    "connections",
    "index",
    "keys",
    "log_segments",
    "log_size_bytes",
    "pending_writes",
    "revision",
    "scans_open",
    "uptime_seconds",
)


class Metrics:
    """All metrics of one node. Each counter is an attribute; it only grows, from 0 at the node's start."""

    __slots__ = (*COUNTERS, "_gauges")

    connections_total: int
    kv_failures_total: int
    kv_reads_total: int
    kv_replayed_total: int
    kv_scans_total: int
    kv_writes_total: int
    log_bytes_total: int
    log_commands_total: int
    log_entries_total: int
    log_full_total: int
    log_write_seconds_total: float
    scans_expired_total: int
    write_wait_seconds_total: float
    writes_dropped_total: int
    writes_refused_total: int

    def __init__(self) -> None:
        for name in COUNTERS:
            setattr(self, name, 0)
        self._gauges: dict[str, Callable[[], float]] = {}

    def measure(self, gauges: Mapping[str, Callable[[], float]]) -> None:
        """Say where the values of some gauges come from. Raises ValueError for a name that is not one of GAUGES."""
        for name, read in gauges.items():
            if name not in GAUGES:
                raise ValueError(f"{name} is not the name of a gauge")
            self._gauges[name] = read

    def values(self) -> dict[str, float]:
        """Every counter and every gauge that is measured, by name."""
        values: dict[str, float] = {name: getattr(self, name) for name in COUNTERS}
        for name, read in self._gauges.items():
            values[name] = read()
        return dict(sorted(values.items()))
