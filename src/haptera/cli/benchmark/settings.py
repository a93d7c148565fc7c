"""The settings of a run: everything that its figures depend on, but for the machine."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from haptera.cli.benchmark.key_choice import Distribution

WorkloadName = Literal["read", "write", "mixed", "scan", "echo", "stream"]

#: Workloads of the messaging library; the others need a store.
MESSAGING: Final = frozenset({"echo", "stream"})


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """As given on the command line. ``rate`` None is a closed loop; ``duration_s`` or ``count`` ends the run."""

    workload: WorkloadName
    target: str
    read_ratio: float
    distribution: Distribution
    theta: float
    value_size: int
    keys: int
    rows: int
    connections: int
    in_flight: int
    rate: float | None
    duration_s: float | None
    count: int | None
    warmup_s: float
    seed: int
    timeout_s: float | None
