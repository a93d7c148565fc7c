"""File descriptors of a node: some are kept for its log, however many connect (spec/protocol.md 8).

Who connects and says no more costs a descriptor for as long as it likes. If the last one were a connection's, the next
segment of the log could not be made, and the node would have to end.
"""

from __future__ import annotations

import resource
from contextlib import suppress

RESERVED = 64
"""Descriptors that connections do not get: a dozen are the log's, the loop's and the listeners', the rest is room for
what is accepted faster than it is refused."""


def raise_limit() -> None:
    """Allow this process as many as it may allow itself. The usual soft limit, 1024, is for programs that `select`."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Where there is no hard limit, the system may have one nevertheless, and says so.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def connections_max(wanted: int, listeners: int) -> int:
    """How many connections each of so many listeners may have: those that are `wanted`, or as many as there can be.

    A quarter more are there for a moment, because they are told why they are refused (`haptera.peer.Server`).
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, (limit - RESERVED) // max(1, listeners) * 4 // 5))
