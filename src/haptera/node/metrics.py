"""The metrics of a node: one registry, the names of spec/metrics.toml.

Counters are plain attributes that the hot path adds to. Numbers that another part has already (the number of keys, the
bytes that connections have received) are read only when the metrics are; without listeners there are none about
connections. A counter with a label is one number for each value of it; its name in `values` is
``name{label="value"}``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from haptera.errors import TABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

#: The metrics that are attributes of `Metrics`.
COUNTERS = (
    "answers_refused_total",
    "audit_lines_total",
    "audit_lost_total",
    "connections_total",
    "keys_expired_total",
    "kv_failures_total",
    "kv_handler_seconds_total",
    "kv_reads_total",
    "kv_replayed_total",
    "kv_scans_total",
    "kv_writes_total",
    "leases_ended_total",
    "log_bytes_total",
    "log_commands_total",
    "log_entries_total",
    "log_full_total",
    "log_write_seconds_total",
    "logins_failed_total",
    "logins_total",
    "requests_rate_limited_total",
    "scans_expired_total",
    "snapshots_failed_total",
    "snapshots_total",
    "watches_behind_total",
    "watches_slow_total",
    "write_wait_seconds_total",
    "writes_dropped_total",
    "writes_out_of_memory_total",
    "writes_refused_total",
    "writes_unlogged_total",
)

#: The metrics that are read from other parts, and their kinds.
MEASURED = {
    "archive_lag_segments": "gauge",
    "audit_size_bytes": "gauge",
    "audit_waiting": "gauge",
    "certificate_end_time_seconds": "gauge",
    "connections": "gauge",
    "connections_refused_total": "counter",
    "entries_size_bytes": "gauge",
    "entry_time_offset_seconds": "gauge",
    "events": "gauge",
    "events_oldest_revision": "gauge",
    "events_size_bytes": "gauge",
    "half_open_connections": "gauge",
    "history_oldest_revision": "gauge",
    "history_oldest_time_seconds": "gauge",
    "index": "gauge",
    "keys": "gauge",
    "keys_expiring": "gauge",
    "keys_leased": "gauge",
    "leases": "gauge",
    "log_segments": "gauge",
    "log_size_bytes": "gauge",
    "maintenance": "gauge",
    "older_entries_size_bytes": "gauge",
    "pending_writes": "gauge",
    "remembered_answers": "gauge",
    "remembered_answers_size_bytes": "gauge",
    "requests_in_flight": "gauge",
    "requests_received_total": "counter",
    "revision": "gauge",
    "scans_open": "gauge",
    "snapshot_age_seconds": "gauge",
    "snapshot_index": "gauge",
    "snapshot_memory_needed_bytes": "gauge",
    "snapshot_seconds": "gauge",
    "snapshot_size_bytes": "gauge",
    "snapshots": "gauge",
    "snapshots_size_bytes": "gauge",
    "tls_failed_total": "counter",
    "tls_files_refused_total": "counter",
    "uptime_seconds": "gauge",
    "watches_behind": "gauge",
    "watches_open": "gauge",
    "wire_received_bytes_total": "counter",
    "wire_received_frames_total": "counter",
    "wire_sent_bytes_total": "counter",
    "wire_sent_frames_total": "counter",
}

#: Counters with a label, and the label's name. A node knows all its values; a peer cannot add one.
LABELLED = {"protocol_errors_reported_total": "code", "protocol_errors_total": "code", "requests_total": "method"}

#: The label of a code that is not one of the protocol's.
OTHER_CODE = "other"


class Metrics:
    """All metrics of one node. Each counter is an attribute; it only grows, from 0 at the node's start."""

    __slots__ = (*COUNTERS, "_codes", "_measured", "_requests")

    answers_refused_total: int
    audit_lines_total: int
    audit_lost_total: int
    connections_total: int
    keys_expired_total: int
    kv_failures_total: int
    kv_handler_seconds_total: float
    kv_reads_total: int
    kv_replayed_total: int
    kv_scans_total: int
    kv_writes_total: int
    leases_ended_total: int
    log_bytes_total: int
    log_commands_total: int
    log_entries_total: int
    log_full_total: int
    log_write_seconds_total: float
    logins_failed_total: int
    logins_total: int
    requests_rate_limited_total: int
    scans_expired_total: int
    snapshots_failed_total: int
    snapshots_total: int
    watches_behind_total: int
    watches_slow_total: int
    write_wait_seconds_total: float
    writes_dropped_total: int
    writes_out_of_memory_total: int
    writes_refused_total: int
    writes_unlogged_total: int

    def __init__(self) -> None:
        for name in COUNTERS:
            setattr(self, name, 0)
        self._measured: dict[str, Callable[[], float]] = {}
        self._requests: dict[str, dict[str, int]] = {}
        self._codes: dict[str, dict[str, int]] = {name: {} for name, label in LABELLED.items() if label == "code"}

    def requests(self, service: str, methods: Iterable[str]) -> dict[str, int]:
        """The numbers of requests to each method of a service, for it to add to: `requests_total`."""
        return self._requests.setdefault(service, dict.fromkeys(methods, 0))

    def count_code(self, name: str, code: int) -> None:
        """Add one to the number of an error's code: of the metric `name`, which has the label `code`."""
        counts = self._codes[name]
        value = str(code) if code in TABLE else OTHER_CODE
        counts[value] = counts.get(value, 0) + 1

    def measure(self, sources: Mapping[str, Callable[[], float]]) -> None:
        """Say where the values of some metrics come from. Raises ValueError for a name that is not in MEASURED."""
        for name, read in sources.items():
            if name not in MEASURED:
                raise ValueError(f"{name} is not the name of a metric that is measured")
            self._measured[name] = read

    def values(self) -> dict[str, float]:
        """Every counter, and all that is measured, by name."""
        values: dict[str, float] = {name: getattr(self, name) for name in COUNTERS}
        for service, counts in self._requests.items():
            for method, count in counts.items():
                values[f'requests_total{{method="{service}.{method}"}}'] = count
        for name, codes in self._codes.items():
            for code, count in codes.items():
                values[f'{name}{{code="{code}"}}'] = count
        for name, read in self._measured.items():
            values[name] = read()
        return dict(sorted(values.items()))
