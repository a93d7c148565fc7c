"""Haptera: a durable key-value database, and the multiplexed messaging library it is served over.

    >>> async with haptera.connect() as db:
    ...     version = await db.set("greeting", "hello")
    ...     entry = await db.get("greeting")
    >>> entry.text
    'hello'

The public surface is the names here, all of `haptera.sync` and `haptera.typed`, all classes of `haptera.errors`,
`haptera.recipes`, `haptera.authentication`, `haptera.cafe` and `haptera.notebook`, and `haptera.testing`; everything
else may change. A name is imported when it is first used, so `import haptera` costs next to nothing, and a client
imports nothing that only a node needs.

    connect, open, Database, Entry, Scan, Watch, …      the database, served or in this process
    listen, dial, Server, Peer, Service, method, …      the messaging library
    HapteraError, KeyNotFound, Failure, Code, …         the errors; the other classes are in `haptera.errors`
    haptera.sync                                        the same for threads, without `await`
    haptera.notebook                                    tables of results
    haptera.typed                                       values of the types of a program, in stores and in services
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.lazy import lazily
from haptera.version import __version__

if TYPE_CHECKING:
    from haptera import errors
    from haptera import sync as sync
    from haptera import typed as typed
    from haptera.client import (
        Backup,
        Cache,
        Database,
        Entry,
        Event,
        Scan,
        Transaction,
        TransactResult,
        Watch,
        connect,
    )
    from haptera.client import open_embedded as open  # noqa: A004 - the name that gzip, io and os give it too
    from haptera.connection import Budget
    from haptera.errors import (
        CallError,
        Code,
        ConnectionLost,
        DeadlineExceeded,
        Failure,
        HapteraError,
        KeyExists,
        KeyNotFound,
        Outcome,
        PermissionDenied,
        TransactionConflict,
        VersionMismatch,
    )
    from haptera.peer import (
        Answer,
        Call,
        CallStream,
        ConnectionOptions,
        Credentials,
        Peer,
        Request,
        Server,
        Service,
        Trace,
        dial,
        listen,
        method,
    )
    from haptera.wire import Limits

__all__ = [
    "Answer",
    "Backup",
    "Budget",
    "Cache",
    "Call",
    "CallError",
    "CallStream",
    "Code",
    "ConnectionLost",
    "ConnectionOptions",
    "Credentials",
    "Database",
    "DeadlineExceeded",
    "Entry",
    "Event",
    "Failure",
    "HapteraError",
    "KeyExists",
    "KeyNotFound",
    "Limits",
    "Outcome",
    "Peer",
    "PermissionDenied",
    "Request",
    "Scan",
    "Server",
    "Service",
    "Trace",
    "TransactResult",
    "Transaction",
    "TransactionConflict",
    "VersionMismatch",
    "Watch",
    "__version__",
    "connect",
    "dial",
    "errors",
    "listen",
    "method",
    "open",
]

# name: its module. Names that are not listed here belong to the messaging library.
_MODULES: Final = {
    **dict.fromkeys(__all__, "haptera.peer"),
    **dict.fromkeys(
        (
            "Backup",
            "Cache",
            "Database",
            "Entry",
            "Event",
            "Scan",
            "TransactResult",
            "Transaction",
            "Watch",
            "connect",
            "open",
        ),
        "haptera.client",
    ),
    **dict.fromkeys(
        (
            "CallError",
            "Code",
            "ConnectionLost",
            "DeadlineExceeded",
            "Failure",
            "HapteraError",
            "KeyExists",
            "KeyNotFound",
            "Outcome",
            "PermissionDenied",
            "TransactionConflict",
            "VersionMismatch",
        ),
        "haptera.errors",
    ),
    "Budget": "haptera.connection",
    "Limits": "haptera.wire",
    "errors": "haptera.errors",
    "sync": "haptera.sync",
    "typed": "haptera.typed",
}

if not TYPE_CHECKING:  # a type checker would take it to mean that any name is there
    __getattr__ = lazily(__name__, _MODULES, {"open": "open_embedded"})  # which shadows no built-in inside the package


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
