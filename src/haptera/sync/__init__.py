"""Haptera for programs without an event loop: the database and the messaging library, for threads.

The names are those of `haptera`, and their calls are the same without `await`:

    with haptera.sync.connect() as db:
        db.set("greeting", "hello")
        entry = db.get("greeting")

    connect, open, Database, Scan, Watch, …             the database, served or in this process
    Lease, Lock, Queue, …                               its recipes
    listen, dial, Server, Peer, Service, method, …      the messaging library

Entries, events and errors are those of `haptera` itself. Any number of threads may use one object. The connections
live in one further thread of the process, which begins with the first use and ends with the interpreter. A database is
usable in forked children, each of which has a connection and a thread of its own.

Ctrl-C ends the wait for a call, and cancels it. The methods of a service are plain functions, each run in a thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.lazy import lazily

if TYPE_CHECKING:
    from haptera.client import Entry, Event, Pending, TransactResult
    from haptera.sync.answers import Backup, Cache, Scan, Watch
    from haptera.sync.batches import Pipeline, Transaction
    from haptera.sync.database import Database
    from haptera.sync.facade import End, Items
    from haptera.sync.messaging import CallStream, LastingPeer, LastingStream, Peer, Request, Server, TypedCallStream
    from haptera.sync.openings import connect, dial, listen, open  # noqa: A004 - as in haptera
    from haptera.sync.recipes import (
        Barrier,
        Counter,
        Election,
        Holding,
        Job,
        Lease,
        Lock,
        Queue,
        RateLimit,
        Semaphore,
        Worker,
    )
    from haptera.sync.services import Service, method, typed_method
    from haptera.sync.typed_values import (
        TypedCache,
        TypedChanges,
        TypedDatabase,
        TypedScan,
        TypedTransaction,
        TypedWatch,
    )
    from haptera.sync.users import Administration

__all__ = [
    "Administration",
    "Backup",
    "Barrier",
    "Cache",
    "CallStream",
    "Counter",
    "Database",
    "Election",
    "End",
    "Entry",
    "Event",
    "Holding",
    "Items",
    "Job",
    "LastingPeer",
    "LastingStream",
    "Lease",
    "Lock",
    "Peer",
    "Pending",
    "Pipeline",
    "Queue",
    "RateLimit",
    "Request",
    "Scan",
    "Semaphore",
    "Server",
    "Service",
    "TransactResult",
    "Transaction",
    "TypedCache",
    "TypedCallStream",
    "TypedChanges",
    "TypedDatabase",
    "TypedScan",
    "TypedTransaction",
    "TypedWatch",
    "Watch",
    "Worker",
    "connect",
    "dial",
    "listen",
    "method",
    "open",
    "typed_method",
]

# name: its module. Names that are not listed here are recipes.
_MODULES: Final = {
    **dict.fromkeys(__all__, "haptera.sync.recipes"),
    **dict.fromkeys(("Entry", "Event", "Pending", "TransactResult"), "haptera.client"),
    **dict.fromkeys(("Backup", "Cache", "Scan", "Watch"), "haptera.sync.answers"),
    **dict.fromkeys(("Pipeline", "Transaction"), "haptera.sync.batches"),
    **dict.fromkeys(("End", "Items"), "haptera.sync.facade"),
    **dict.fromkeys(
        ("CallStream", "LastingPeer", "LastingStream", "Peer", "Request", "Server", "TypedCallStream"),
        "haptera.sync.messaging",
    ),
    **dict.fromkeys(("connect", "dial", "listen", "open"), "haptera.sync.openings"),
    **dict.fromkeys(("Service", "method", "typed_method"), "haptera.sync.services"),
    **dict.fromkeys(
        ("TypedCache", "TypedChanges", "TypedDatabase", "TypedScan", "TypedTransaction", "TypedWatch"),
        "haptera.sync.typed_values",
    ),
    "Administration": "haptera.sync.users",
    "Database": "haptera.sync.database",
}

if not TYPE_CHECKING:  # a type checker would take it to mean that any name is there
    __getattr__ = lazily(__name__, _MODULES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
