"""Why a connection ended: the error of its calls, and the lines in the log of its beginning and its end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from haptera.errors import Code, ConnectionLost, Failure, Outcome, describe
from haptera.peer.event_log import EventLog, shortened
from haptera.transport import TlsFailed
from haptera.wire import ForeignBytes

if TYPE_CHECKING:
    from haptera.connection import Closed, Connection

#: Makes the fields of a line about a connection, with named ones added.
Fields = Callable[..., dict[str, Any]]

#: The codes beside those of connections (1xxx) by which a side refuses another that it has not let in.
_REFUSING: Final = frozenset(
    {
        int(Code.AUTHENTICATION_REQUIRED),
        int(Code.AUTHENTICATION_FAILED),
        int(Code.AUTHENTICATION_LOCKED),
        int(Code.UNSUPPORTED_MECHANISM),
        int(Code.TOO_MANY_REQUESTS),
    }
)
_OF_CONNECTIONS: Final = range(1000, 2000)


def describe_end(
    event: Closed, cause: Exception | None, refusal: Failure | None = None, *, admitted: bool, remote: str = ""
) -> ConnectionLost:
    """Return the error of the calls under way; ``cause`` is the transport's error, if it has ended by itself.

    ``refusal`` is why this side has ended it, where that is no fault of the protocol. Before the two sides are
    ``admitted`` the other one may be anyone: a code of an answer, such as that of a missing key, is then in the text
    alone, and not the error of a call.
    """
    said = event.failure
    if refusal is not None:
        return ConnectionLost(f"the connection was ended: {refusal.message}", failure=refusal)
    if said is not None:
        message = f"the other side ended the connection: {describe(said.name, said.code, said.message, {})}"
    elif isinstance(event.error, ForeignBytes):
        place = "" if remote == "unix" else f" at {remote}"
        message = f"the server{place} speaks {event.error.protocol}, not Haptera"
    elif event.error is not None:
        message = f"the connection was ended: {event.error}"
    elif cause is not None:
        message = f"the connection was lost: {cause}"
    else:
        message = "the connection is closed"
    if said is not None and not (admitted or said.code in _OF_CONNECTIONS or said.code in _REFUSING):
        said = None
    ending = ConnectionLost(message, failure=said)
    ending.__cause__ = event.error or cause
    return ending


def outcome_of_sent(event: Closed, cause: Exception | None, connection: Connection) -> Outcome:
    """Return the outcome of calls that were sent. ``cause`` is as for `describe_end`."""
    # A handshake that was refused applied nothing; one that this side refuses may have.
    told = event.failure is not None or (isinstance(cause, TlsFailed) and cause.in_handshake)
    refused = not connection.admitted and (told or not connection.first_flight)
    return "not_applied" if refused else "unknown"


def log_opening(log: EventLog, fields: Fields) -> None:
    """Log, at the level debug, that there is a connection. ``fields`` makes the fields of the line."""
    log.write(logging.DEBUG, "connection_opened", fields)


def log_end(log: EventLog, event: Closed, cause: Exception | None, reason: str, fields: Fields) -> None:
    """Log an end with its ``reason``: a warning if a side is to blame for it, else a line at the level debug.

    A client that connects and leaves without a word, as a load balancer does to check the port, is not to blame.
    """
    # The peer's reason is told in its own words, because this version may not know the code.
    error = event.failure or event.error
    if isinstance(cause, TlsFailed):
        failed = shortened(str(cause))
        log.write(logging.WARNING, "tls_failed", lambda: fields(reason=failed))
    elif error is None:
        why = reason if cause is None else str(cause)
        log.write(logging.DEBUG, "connection_ended", lambda: fields(reason=why))
    else:
        name, message = shortened(error.name), shortened(error.message)
        log.write(
            logging.WARNING,
            "connection_failed" if event.failure is None else "connection_ended_by_peer",
            lambda: fields(code=error.code, code_name=name, reason=message),
        )
