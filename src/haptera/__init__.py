"""Haptera: a durable key-value database, and the multiplexed messaging library it is served over.

What is exported here is the whole public surface; everything else may change. A name is imported when it is first
used, so `import haptera` costs next to nothing, and the client needs none of what only a node does.

    connect, open, Database, Entry, Scan                the database, served or in this process
    listen, dial, Server, Peer, Service, method, …      the messaging library
    HapteraError and the classes under it, Failure      what can go wrong
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

from haptera.version import __version__

if TYPE_CHECKING:
    from haptera.client import (
        Database,
        Entry,
        Scan,
        connect,
    )
    from haptera.client import open_embedded as open  # noqa: A004 - the name that gzip, io and os give it too
    from haptera.errors import (
        AnswerNotKept,
        AuthenticationFailed,
        AuthenticationLocked,
        AuthenticationRequired,
        BackupInvalid,
        CallError,
        Cancelled,
        ChecksumMismatch,
        Code,
        ConfigurationError,
        ConnectionLost,
        CorruptionDetected,
        CorruptionError,
        DeadlineExceeded,
        DecompressionFailed,
        DirectoryInUse,
        Failure,
        FlowControlViolation,
        FrameTooLarge,
        GoingAway,
        HandlerFailed,
        HandshakeTimeout,
        HapteraError,
        IdleTimeout,
        IntegerOverflow,
        InvalidArgument,
        InvalidKey,
        KeyExists,
        KeyNotFound,
        LastAdmin,
        LeaseNotFound,
        LocalProtocolError,
        MaintenanceMode,
        MalformedFrame,
        MessageTooLarge,
        MissingKey,
        NewerFormat,
        NoQuorum,
        NotAnInteger,
        NotLeader,
        Outcome,
        PasswordPolicy,
        PermissionDenied,
        ProtectedRole,
        ProtocolError,
        ProtocolViolation,
        RateLimited,
        RemoteProtocolError,
        RequestIdReused,
        RevisionCompacted,
        RoleExists,
        RoleNotFound,
        ServerError,
        ShuttingDown,
        SignatureMismatch,
        SlowConsumer,
        StorageError,
        StorageFailed,
        StorageFull,
        TooManyConnections,
        TooManyRequests,
        TransactionTooLarge,
        UnknownFrameType,
        UnknownMethod,
        UnknownService,
        UnsupportedFlag,
        UnsupportedMechanism,
        UnsupportedMetadata,
        UnsupportedVersion,
        UserExists,
        UserNotFound,
        ValueTooLarge,
        VersionMismatch,
        WrongKey,
        WrongLoop,
        failure,
    )
    from haptera.peer import (
        Answer,
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

__all__ = [
    "Answer",
    "AnswerNotKept",
    "AuthenticationFailed",
    "AuthenticationLocked",
    "AuthenticationRequired",
    "BackupInvalid",
    "CallError",
    "Cancelled",
    "ChecksumMismatch",
    "Code",
    "ConfigurationError",
    "ConnectionLost",
    "CorruptionDetected",
    "CorruptionError",
    "Credentials",
    "Database",
    "DeadlineExceeded",
    "DecompressionFailed",
    "DirectoryInUse",
    "Entry",
    "Failure",
    "FlowControlViolation",
    "FrameTooLarge",
    "GoingAway",
    "HandlerFailed",
    "HandshakeTimeout",
    "HapteraError",
    "IdleTimeout",
    "IntegerOverflow",
    "InvalidArgument",
    "InvalidKey",
    "KeyExists",
    "KeyNotFound",
    "LastAdmin",
    "LeaseNotFound",
    "LocalProtocolError",
    "MaintenanceMode",
    "MalformedFrame",
    "MessageTooLarge",
    "MissingKey",
    "NewerFormat",
    "NoQuorum",
    "NotAnInteger",
    "NotLeader",
    "Outcome",
    "PasswordPolicy",
    "Peer",
    "PermissionDenied",
    "ProtectedRole",
    "ProtocolError",
    "ProtocolViolation",
    "RateLimited",
    "RemoteProtocolError",
    "Request",
    "RequestIdReused",
    "RevisionCompacted",
    "RoleExists",
    "RoleNotFound",
    "Scan",
    "Server",
    "ServerError",
    "Service",
    "ShuttingDown",
    "SignatureMismatch",
    "SlowConsumer",
    "StorageError",
    "StorageFailed",
    "StorageFull",
    "TooManyConnections",
    "TooManyRequests",
    "Trace",
    "TransactionTooLarge",
    "UnknownFrameType",
    "UnknownMethod",
    "UnknownService",
    "UnsupportedFlag",
    "UnsupportedMechanism",
    "UnsupportedMetadata",
    "UnsupportedVersion",
    "UserExists",
    "UserNotFound",
    "ValueTooLarge",
    "VersionMismatch",
    "WrongKey",
    "WrongLoop",
    "__version__",
    "connect",
    "dial",
    "failure",
    "listen",
    "method",
    "open",
]

# name: the module that has it. The exceptions of single codes are the many.
_MODULES: Final = {
    **dict.fromkeys(__all__, "haptera.errors"),
    **dict.fromkeys(
        (
            "CallError",
            "ConfigurationError",
            "ConnectionLost",
            "CorruptionError",
            "DirectoryInUse",
            "Failure",
            "HapteraError",
            "LocalProtocolError",
            "MissingKey",
            "NewerFormat",
            "Outcome",
            "ProtocolError",
            "RemoteProtocolError",
            "ServerError",
            "StorageError",
            "WrongKey",
            "WrongLoop",
            "failure",
        ),
        "haptera.errors",
    ),
    **dict.fromkeys(("Database", "Entry", "Scan", "connect", "open"), "haptera.client"),
    **dict.fromkeys(
        ("Answer", "Credentials", "Peer", "Request", "Server", "Service", "Trace", "dial", "listen", "method"),
        "haptera.peer",
    ),
}

# Inside the package they do not shadow the built-in.
_OTHER_NAMES: Final = {"open": "open_embedded"}


if not TYPE_CHECKING:  # a type checker would take it to mean that any name is there

    def __getattr__(name: str) -> object:
        module = _MODULES.get(name)
        if module is None:
            raise AttributeError(f"module 'haptera' has no attribute {name!r}")
        value = getattr(import_module(module), _OTHER_NAMES.get(name, name))
        globals()[name] = value  # the next use finds it without coming here
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
