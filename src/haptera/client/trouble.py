"""Which errors of a store pass: within the time of one call, and in the life of something that outlives its calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.errors import (
    REMEDIES,
    Code,
    ConnectionLost,
    RemoteProtocolError,
    RevisionCompacted,
    ServerError,
)

if TYPE_CHECKING:
    from haptera.errors import Failure, HapteraError

#: Refusals that pass within the time of a call: the request or its answer was damaged on its way, the node goes away
#: and comes back, or it has no room at this moment. spec/errors.toml names more that pass, such as a full disk. They
#: last longer than a call, and its caller should know.
PASSING_SOON: Final = frozenset(
    {Code.CHECKSUM_MISMATCH, Code.GOING_AWAY, Code.TOO_MANY_REQUESTS, Code.RATE_LIMITED, Code.SHUTTING_DOWN}
)

#: Refusals after which a connection takes no more calls.
LEAVING: Final = frozenset({Code.GOING_AWAY, Code.SHUTTING_DOWN})

#: Codes about users and what they may do.
ACCESS_CODES: Final = range(2000, 3000)

#: The first code of those about the node and its disk, and behind them about the cluster. One of a newer server that is
#: not known here goes by its thousand: someone mends a node.
NODE_CODE_MIN: Final = 5000
NODE_CODE_MAX: Final = 6999


def passes_soon(refusal: Failure, *, write: bool) -> bool:
    """Whether a failure says that the same call may be sent again, within its time.

    Of a change, only if it was not applied, or if nothing but its answer was damaged: then under its id.
    """
    if refusal.code not in PASSING_SOON:
        return False
    return not write or refusal.outcome == "not_applied" or refusal.code == Code.CHECKSUM_MISMATCH


def passes(error: HapteraError) -> bool:
    """Whether something that outlives its calls tries again after an error, for as long as its database is open.

    A connection that has ended is followed by another, for any reason of its end, unless the user was not let in: each
    attempt would count as one more failure. Of a refusal spec/errors.toml says whether it passes. A program that waits
    for a lock, takes jobs or keeps a copy is still there when a full disk has room again.
    """
    if isinstance(error, ConnectionLost):
        said = error.failure
        return said is None or said.code not in ACCESS_CODES or REMEDIES.get(said.code) != "no"
    if not isinstance(error, ServerError):
        return False
    remedy = REMEDIES.get(error.code)
    return NODE_CODE_MIN <= error.code <= NODE_CODE_MAX if remedy is None else remedy != "no"


def ends_watch_alone(error: HapteraError) -> bool:
    """Whether an error ends a watch, and another one may be begun with the entries that are there then: it passes, the
    watch has lost its place in the history, or it has told changes that have no order.
    """
    return isinstance(error, RevisionCompacted | RemoteProtocolError) or passes(error)
