"""File descriptors of a node: some are kept for its log, for any number of connections (spec/protocol.md 8).

A client that connects and stays silent costs a descriptor for as long as it likes. If the last one were a connection's,
the next segment of the log could not be made, and the node would have to end.
"""

from __future__ import annotations

import resource
from bisect import bisect_right
from contextlib import suppress

from haptera.errors import ConfigurationError
from haptera.transport import ACCEPTED_PER_TURN, leaving_max

#: Descriptors that listeners do not get: a dozen are the log's and the loop's, the rest is for short-lived ones.
RESERVED = 32

#: Descriptors of a listener beside its connections: its own, and the accepted ones that are refused some turns
#: later.
PER_LISTENER = 4 * ACCEPTED_PER_TURN

#: Connections of the socket in the data directory, at most. Only a process that may read the data can open it, so
#: they belong to a few programs, and each program needs one.
LOCAL_CONNECTIONS_MAX = 1000


def raise_limit() -> None:
    """Allow this process as many as it may allow itself. The usual soft limit, 1024, is for programs that `select`."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Where there is no hard limit, the system may have one nevertheless, and says so.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def needed(connections: int, listeners: int) -> int:
    """The most descriptors that ``listeners`` with ``connections`` each, and the local socket, can have."""
    return RESERVED + listeners * _of_listener(connections) + _of_listener(min(connections, LOCAL_CONNECTIONS_MAX))


def _of_listener(connections: int) -> int:
    return PER_LISTENER + connections + leaving_max(connections)


def connections_max(wanted: int, listeners: int) -> int:
    """The number of connections that each of the `listeners` may have: `wanted`, or as many as there can be.

    Raises ConfigurationError where that is not even one.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return wanted
    possible = bisect_right(range(1, wanted + 1), limit, key=lambda connections: needed(connections, listeners))
    if not possible:
        least = needed(1, listeners)
        raise ConfigurationError(f"{limit} open files (ulimit -n) are too few for a node, which needs {least} at least")
    return possible
