"""The errors, as exceptions and as values (spec/protocol.md, section 6).

    HapteraError
        ProtocolError               the bytes of a connection broke the protocol
            LocalProtocolError      this side would have
            RemoteProtocolError     the peer did
        ConnectionLost              the connection ended with the call in flight; one that the peer ended with an error
                                    is of that error's class, too
        ServerError                 the peer answered with an error: one subclass per code, as KeyNotFound
            CallError               a code of an application, from 10000
        StorageError                a data directory could not be used
            CorruptionError         it is damaged
                DamagedBackup       a backup is
            DirectoryInUse          another process has it open
            MissingKey, WrongKey    the key to read it with is missing, or is another one
            NewerFormat             a newer version wrote it
            ForeignArchive          an archive is another node's
            OutdatedCopy            the log in it is older than its newest snapshot
        ConfigurationError          an option, URL or environment is wrong or incomplete
        TransactionConflict         a key that a transaction has read was changed before its commit
        LeaseLost                   a lease was not renewed in time, or the node has ended it
        LockLost                    a lock, a leadership or a permit was lost while it was held
        UnexpectedValue             a value does not fit the type that a program reads or writes it as
        WaitTimeout                 others were waited for as long as the program wanted to
        WrongLoop                   an object was used outside the event loop, thread or process that it belongs to

Between the layers an error travels as a `Failure`, a value. The class of a code is imported when it is first used,
because most programs need few of them and a command starts faster without the others.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from haptera.errors.base import CallError, HapteraError, ServerError, describe, printable
from haptera.errors.code_table import REMEDIES, TABLE, Code, Outcome
from haptera.errors.connection import ConnectionLost, LocalProtocolError, ProtocolError, RemoteProtocolError
from haptera.errors.failure import Failure, failure
from haptera.errors.storage import (
    CorruptionError,
    DamagedBackup,
    DirectoryInUse,
    ForeignArchive,
    MissingKey,
    NewerFormat,
    OutdatedCopy,
    StorageError,
    WrongKey,
)
from haptera.errors.usage import (
    ConfigurationError,
    LeaseLost,
    LockLost,
    TransactionConflict,
    UnexpectedValue,
    WaitTimeout,
    WrongLoop,
)

if TYPE_CHECKING:
    from haptera.errors.codes import *  # noqa: F403  # its `__all__` says which

__all__ = [
    "REMEDIES",
    "TABLE",
    "CallError",
    "Code",
    "ConfigurationError",
    "ConnectionLost",
    "CorruptionError",
    "DamagedBackup",
    "DirectoryInUse",
    "Failure",
    "ForeignArchive",
    "HapteraError",
    "LeaseLost",
    "LocalProtocolError",
    "LockLost",
    "MissingKey",
    "NewerFormat",
    "Outcome",
    "OutdatedCopy",
    "ProtocolError",
    "RemoteProtocolError",
    "ServerError",
    "StorageError",
    "TransactionConflict",
    "UnexpectedValue",
    "WaitTimeout",
    "WrongKey",
    "WrongLoop",
    "describe",
    "failure",
    "printable",
]

# A traceback names each class as a program imports it.
for _class in list(globals().values()):
    if isinstance(_class, type) and issubclass(_class, HapteraError):
        _class.__module__ = __name__
del _class


if not TYPE_CHECKING:  # a type checker would take it to mean that any name is there

    def __getattr__(name: str) -> object:
        codes = import_module("haptera.errors.codes")
        if name not in codes.__all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(codes, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *import_module("haptera.errors.codes").__all__})
