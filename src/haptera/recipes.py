"""The classes of what a `Database` makes: leases and locks, barriers, queues and jobs, counters, limits, pipelines.

Programs get their objects from the calls of a database, and need the names for annotations alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from haptera.lazy import lazily

if TYPE_CHECKING:
    from haptera.client import (
        Barrier,
        Counter,
        Election,
        Holding,
        Job,
        Lease,
        LeaseInfo,
        Lock,
        Pending,
        Pipeline,
        Queue,
        RateLimit,
        Semaphore,
        Worker,
    )

__all__ = [
    "Barrier",
    "Counter",
    "Election",
    "Holding",
    "Job",
    "Lease",
    "LeaseInfo",
    "Lock",
    "Pending",
    "Pipeline",
    "Queue",
    "RateLimit",
    "Semaphore",
    "Worker",
]

if not TYPE_CHECKING:  # a type checker would take it to mean that any name is there
    __getattr__ = lazily(__name__, dict.fromkeys(__all__, "haptera.client"))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
