"""The parameters that CONFIG GET tells: those of Redis that a node has a value for.

Clients, exporters and benchmarks ask for them, and go by the answer. CONFIG SET is taken where it asks for what holds
already, because many programs set a parameter without a look at it. All else of a node is set where it is started.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.dialects.resp.bounds import BULK_SIZE_MAX
from haptera.dialects.resp.keyspace_channels import FLAGS

if TYPE_CHECKING:
    from collections.abc import Callable

    from haptera.node.frontend import Facts

#: The letters of the events that a program may ask for: those that a node tells, those of kinds of values that it does
#: not have, and ``A`` for all of these. ``m`` and ``n``, a miss and a new key, are told by no node.
_NOTIFIED_LETTERS: Final = frozenset(FLAGS + "Alshztde")

#: Parameters that are the same for each node. The log is synced before a change is answered; there is no timeout of
#: idle clients, no eviction, and one database.
_FIXED: Final = {
    "appendonly": "yes",
    "cluster-enabled": "no",
    "databases": "1",
    "lazyfree-lazy-user-flush": "no",
    "maxmemory-policy": "noeviction",
    "maxmemory-samples": "5",
    "notify-keyspace-events": FLAGS,
    "proto-max-bulk-len": str(BULK_SIZE_MAX),
    "save": "",
    "slowlog-log-slower-than": "-1",
    "slowlog-max-len": "0",
    "timeout": "0",
}
#: Parameters that a node's options decide. The second group needs the permission `metrics`, as the same fields
#: of a node's status do.
_OPEN: Final[dict[str, Callable[[Facts], str]]] = {
    "appendfsync": lambda facts: "always" if facts.config.durability == "sync" else "no",
}
_MEASURED: Final[dict[str, Callable[[Facts], str]]] = {
    "maxclients": lambda facts: str(facts.config.max_connections),
    "maxmemory": lambda facts: str(facts.config.memory_max),
}


def parameters(facts: Facts, *, measured: bool) -> dict[str, str]:
    """Return all parameters with their values; ``measured`` where the caller has the permission `metrics`."""
    read = {**_OPEN, **(_MEASURED if measured else {})}
    return dict(sorted({**_FIXED, **{name: value(facts) for name, value in read.items()}}.items()))


def holds(name: str, asked: str, value: str) -> bool:
    """Whether a parameter that has a value is as it is asked for."""
    if name == "notify-keyspace-events":
        return set(asked) <= _NOTIFIED_LETTERS
    return asked.lower() == value.lower()
