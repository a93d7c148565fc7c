"""Errors of a connection: its bytes broke the protocol, or it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from haptera.errors.base import HapteraError, describe
from haptera.errors.failure import Failure, described

if TYPE_CHECKING:
    from haptera.errors.code_table import Outcome


class ProtocolError(HapteraError):
    """The bytes of a connection break the protocol.

    `code` is one of section 6 of spec/protocol.md; `name` and, unless another is given, `message` follow from it.
    `details` has the expected and the actual value.
    """

    code: int

    def __init__(self, code: int, message: str | None = None, details: dict[str, Any] | None = None) -> None:
        name, default_message, _ = described(code)
        self.code = int(code)
        self.name = name
        self.message: str = default_message if message is None else message
        self.details: dict[str, Any] = {} if details is None else details
        super().__init__(self.code, self.message, self.details)

    def failure(self, outcome: Outcome) -> Failure:
        """The same as the value that an ERROR frame carries, with the outcome of the request it answers."""
        return Failure(self.code, self.name, self.message, outcome, self.details)

    def __str__(self) -> str:
        return describe(self.name, self.code, self.message, self.details)


class LocalProtocolError(ProtocolError):
    """This side asked for something that the protocol, or the method that it calls, does not allow.

    Nothing of it was sent, except where a call for one answer met a method that answers with items.
    """

    outcome: Outcome = "not_applied"


class RemoteProtocolError(ProtocolError):
    """The peer sent something that the protocol does not allow."""


class ConnectionLost(HapteraError, ConnectionError):
    """The connection ended, or could not be made.

    `outcome` is the outcome of the call that was in flight: `not_applied` where it was never sent, else `unknown`.
    `failure` is why the peer ended the connection, if it said so. The error is then of the class of that code as well,
    with its `code`, `name` and `details`: `except haptera.errors.TooManyConnections` meets a connection that was
    refused.
    """

    name: str = "CONNECTION_LOST"

    def __new__(cls, message: str, *, outcome: Outcome = "unknown", failure: Failure | None = None) -> Self:
        return super().__new__(cls if failure is None else _explained(cls, failure.code), message)

    def __init__(self, message: str, *, outcome: Outcome = "unknown", failure: Failure | None = None) -> None:
        self.message = message
        self.outcome: Outcome = outcome
        self.failure = failure
        if failure is not None:
            # The fields of a `ServerError`, and no more: the call's outcome differs from the connection's.
            vars(self).update(code=failure.code, name=failure.name, details=failure.details)
        BaseException.__init__(self, message)  # OSError's own would read it as an errno

    def __reduce__(self) -> tuple[object, ...]:
        return _lost, (self.message, self.outcome, self.failure)

    def __str__(self) -> str:
        return self.message


def _lost(message: str, outcome: Outcome, failure: Failure | None) -> ConnectionLost:
    """Make a `ConnectionLost` again that was pickled or copied."""
    return ConnectionLost(message, outcome=outcome, failure=failure)


_Lost = TypeVar("_Lost", bound=ConnectionLost)
_EXPLAINED: Final[dict[int, type[ConnectionLost]]] = {}  # by code: no more than the table has


def _explained(lost: type[_Lost], code: int) -> type[_Lost]:
    """Return the class of a connection that ended with a code: the code's own class and `ConnectionLost` at once."""
    from haptera.errors.codes import BY_CODE  # noqa: PLC0415 - a class for each code, made when one is needed

    known = BY_CODE.get(code)
    if lost is not ConnectionLost or known is None:
        return lost
    if code not in _EXPLAINED:
        contents = {"__doc__": known.__doc__, "__module__": known.__module__}
        _EXPLAINED[code] = type(known.__name__, (ConnectionLost, known), contents)
    return _EXPLAINED[code]  # type: ignore[return-value]  # it is one of ``lost``, which is ConnectionLost itself
