"""What can go wrong, as exceptions and as values (spec/protocol.md, section 6).

    HapteraError
        ProtocolError               the bytes of a connection broke the protocol
            LocalProtocolError      this side would have
            RemoteProtocolError     the peer did
        ConnectionLost              the connection ended with the call in flight; one that the peer ended with an error
                                    is of that error's class, too
        ServerError                 the peer answered with an error: one subclass per code in haptera.error_codes
            CallError               a code of an application, from 10000
        StorageError                a data directory could not be used
            CorruptionError         it is damaged
            DirectoryInUse          another process has it open
            MissingKey, WrongKey    the key to read it with is missing, or is another one
            NewerFormat             a newer version wrote it
        ConfigurationError          an option, URL or environment does not say what to do
        WrongLoop                   an object was used outside the event loop, thread or process that it belongs to

Between the layers an error travels as a `Failure`, a value: on the hot path "no such key" is an ordinary answer, and
raising it would cost more than finding it. It becomes an exception where a caller waits for one.
"""

from typing import Any, Final, Self, TypeVar

import msgspec

from haptera.error_base import HapteraError, ServerError, describe
from haptera.error_table import TABLE, Outcome

__all__ = [
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
]

# Codes below belong to the protocol.
APPLICATION_CODE_MIN: Final = 10_000


class ProtocolError(HapteraError):
    """The bytes of a connection break the protocol.

    `code` is one of section 6 of spec/protocol.md; `name` and, unless another is given, `message` follow from it.
    `details` says what was expected and what was found.
    """

    def __init__(self, code: int, message: str | None = None, details: dict[str, Any] | None = None) -> None:
        name, default_message, _ = _described(code)
        self.code = int(code)
        self.name = name
        self.message = default_message if message is None else message
        self.details = {} if details is None else details
        super().__init__(self.code, self.message, self.details)

    def failure(self, outcome: Outcome) -> "Failure":
        """The same as the value that an ERROR frame carries, with what is known of the request it answers."""
        return Failure(self.code, self.name, self.message, outcome, self.details)

    def __str__(self) -> str:
        return describe(self.name, self.code, self.message, self.details)


class LocalProtocolError(ProtocolError):
    """This side asked for something that the protocol, or the method that it calls, does not allow.

    Nothing of it was sent, except where a call for one answer met a method that answers with items.
    """


class RemoteProtocolError(ProtocolError):
    """The peer sent something that the protocol does not allow."""


class ConnectionLost(HapteraError, ConnectionError):
    """The connection ended, or could not be made.

    `outcome` says what is known of the call that was in flight: `not_applied` where it was never sent, else `unknown`.
    `failure` is why the peer ended the connection, if it said so. The error is then of the class of that code as well,
    with its `code`, `name` and `details`: `except haptera.TooManyConnections` meets a connection that was refused.
    """

    def __new__(cls, message: str, *, outcome: Outcome = "unknown", failure: "Failure | None" = None) -> Self:
        return super().__new__(cls if failure is None else _explained(cls, failure.code), message)

    def __init__(self, message: str, *, outcome: Outcome = "unknown", failure: "Failure | None" = None) -> None:
        self.message = message
        self.outcome: Outcome = outcome
        self.failure = failure
        if failure is not None:
            # What a `ServerError` has, and no more: the call's outcome is not that of the connection's end.
            vars(self).update(code=failure.code, name=failure.name, details=failure.details)
        BaseException.__init__(self, message)  # OSError's own would read it as an errno

    def __reduce__(self) -> tuple[object, ...]:
        return _lost, (self.message, self.outcome, self.failure)

    def __str__(self) -> str:
        return self.message


def _lost(message: str, outcome: Outcome, failure: "Failure | None") -> ConnectionLost:
    """Make a `ConnectionLost` again that was pickled or copied."""
    return ConnectionLost(message, outcome=outcome, failure=failure)


_Lost = TypeVar("_Lost", bound=ConnectionLost)
_EXPLAINED: Final[dict[int, type[ConnectionLost]]] = {}  # by code: no more than the table has


def _explained(lost: type[_Lost], code: int) -> type[_Lost]:
    """Return the class of a connection that ended with a code: the code's own class and `ConnectionLost` at once."""
    from haptera.error_codes import BY_CODE  # noqa: PLC0415 - a class for each code, made when one is needed

    known = BY_CODE.get(code)
    if lost is not ConnectionLost or known is None:
        return lost
    if code not in _EXPLAINED:
        contents = {"__doc__": known.__doc__, "__module__": known.__module__}
        _EXPLAINED[code] = type(known.__name__, (ConnectionLost, known), contents)
    return _EXPLAINED[code]  # type: ignore[return-value]  # it is one of ``lost``, which is ConnectionLost itself


class CallError(ServerError):
    """An application's own error, with a code from 10000.

    A handler raises it to give its caller exactly this: code, name, message, outcome (`not_applied`, `unknown` or
    `applied`) and details. Anything else that a handler raises reaches the caller as HandlerFailed, without its text.
    """


class StorageError(HapteraError):
    """A data directory cannot be opened, or can no longer be written."""


class CorruptionError(StorageError):
    """Stored bytes are not what was written. They are never served.

    `file` and `offset` (bytes from its beginning) say where; `expected` and `actual` what should be there and what is.
    """

    def __init__(self, file: str, offset: int, expected: object, actual: object) -> None:
        self.file = file
        self.offset = offset
        self.expected = expected
        self.actual = actual
        super().__init__(file, offset, expected, actual)

    def __str__(self) -> str:
        return f"{self.file} is damaged at byte {self.offset}: expected {self.expected}, found {self.actual}"


class DirectoryInUse(StorageError):
    """Another process holds the data directory.

    `path` is the data directory, `pid` the other process's id, or None where it could not be read.
    """

    def __init__(self, path: str, pid: int | None, holder: str = "another process") -> None:
        super().__init__(f"{path}: the data directory is in use by {holder}")
        self.path = path
        self.pid = pid


class NewerFormat(StorageError):
    """A file was written by a newer version. `file` names it, `found` and `supported` are format versions."""

    def __init__(self, file: str, found: int, supported: int) -> None:
        super().__init__(f"{file}: format {found} is newer than this version can read ({supported})")
        self.file = file
        self.found = found
        self.supported = supported


class WrongKey(StorageError):
    """A file was encrypted under another data key. `file` names it, `expected` and `actual` are key ids in hex."""

    def __init__(self, file: str, expected: str, actual: str) -> None:
        super().__init__(f"{file}: encrypted under the data key {expected}, but the key file holds {actual}")
        self.file = file
        self.expected = expected
        self.actual = actual


class MissingKey(StorageError):
    """There is a log but no key file to read it with. `file` is where the key file should be."""

    def __init__(self, file: str) -> None:
        super().__init__(f"{file}: the key file is missing, and the log beside it cannot be read without it")
        self.file = file


class ConfigurationError(HapteraError):
    """An option, a URL, a configuration file or the environment does not say what to do."""


class WrongLoop(HapteraError, RuntimeError):
    """An object was used outside the event loop, the thread or the process that it belongs to.

    It is raised before anything is sent, so `outcome` is always `not_applied`. The message names both places.
    """

    outcome: Outcome = "not_applied"


class Failure(msgspec.Struct, frozen=True):
    """An error as a value, and the payload of an ERROR frame (spec/protocol.md, section 6)."""

    code: int
    name: str
    message: str
    outcome: Outcome
    details: dict[str, Any]

    def exception(self) -> ServerError:
        """The exception for this error: its code's class, CallError from 10000, ServerError for a code not known here.

        Returns it, and raises nothing.
        """
        from haptera.error_codes import BY_CODE  # noqa: PLC0415 - a class for each code, made when one is needed

        error_class = CallError if self.code >= APPLICATION_CODE_MIN else BY_CODE.get(self.code, ServerError)
        return error_class(self.code, self.name, self.message, outcome=self.outcome, details=self.details)


def failure(
    code: int,
    details: dict[str, Any] | None = None,
    *,
    outcome: Outcome | None = None,
    message: str | None = None,
) -> Failure:
    """The Failure of a protocol code (`haptera.error_codes.Code`): name, message and outcome follow unless given.

    Raises ValueError for a code that the protocol does not define.
    """
    name, default_message, default_outcome = _described(code)
    return Failure(
        int(code),
        name,
        default_message if message is None else message,
        default_outcome if outcome is None else outcome,
        {} if details is None else details,
    )


def _described(code: int) -> tuple[str, str, Outcome]:
    described = TABLE.get(code)
    if described is None:
        raise ValueError(f"{code} is not an error code of the protocol")
    return described
