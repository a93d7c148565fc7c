"""The options that bound callers: the rate of their requests, and the connections of an address and of a user."""

from __future__ import annotations

from typing import Annotated, Final

from haptera.connection import Bound
from haptera.node.option_kinds import amount

#: One request in a quarter of a minute: at a lower rate a wait is longer than most calls.
RATE_MIN: Final = 0.0625
#: More than a node answers.
RATE_MAX: Final = 1e9
BURST_MIN_S: Final = 0.1
BURST_MAX_S: Final = 3600.0
#: More than a machine has ports.
CONNECTIONS_MAX: Final = 1_000_000

_RATE: Final = Bound(low=RATE_MIN, high=RATE_MAX, zero=True, whole=False)

SessionRate = Annotated[
    float,
    amount(
        "Security",
        "PER_SECOND",
        _RATE,
        "Requests that one connection may make in a second; more are refused (3008). 0: any number.",
    ),
]
UserRate = Annotated[
    float, amount("Security", "PER_SECOND", _RATE, "The same for all connections of one user together.")
]
RateBurst = Annotated[
    float,
    amount(
        "Security",
        "SECONDS",
        Bound(low=BURST_MIN_S, high=BURST_MAX_S, whole=False),
        "Of session_rate and user_rate as many requests may come at once as in this time.",
    ),
]
ConnectionsPerAddress = Annotated[
    int,
    amount(
        "Listeners",
        "COUNT",
        Bound(low=1, high=CONNECTIONS_MAX, zero=True),
        "The most connections of one address, over all listeners; one more is refused (1013). Of IPv6 the first 64 "
        "bits count. Unix sockets have no address. 0: no bound beside max_connections.",
    ),
]
ConnectionsPerUser = Annotated[
    int,
    amount(
        "Listeners",
        "COUNT",
        Bound(low=1, high=CONNECTIONS_MAX, zero=True),
        "The most connections of one user, over all listeners; one more is refused when its user has come in (1013). "
        "The local socket does not count. 0: no bound beside max_connections.",
    ),
]
