"""An event as the audit log is told of it, before it has its place in the chain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from msgspec import Struct

#: administration: of the node, and of its users. authentication: each attempt, and how it ended. denied: a request that
#: its user may not make. slow: a request above the threshold. data: a request of the store, where those are recorded.
#: log: of the audit log itself.
Kind = Literal["administration", "authentication", "denied", "slow", "data", "log"]

#: done: it succeeded. begun: it is about to be done, and another line says how it ended. The others are the outcomes of
#: errors (spec/protocol.md, section 6).
Outcome = Literal["done", "begun", "not_applied", "unknown", "applied"]

#: Events of these kinds may be lost where the log cannot keep up: there are as many as there are requests.
EXPENDABLE: Final = frozenset({"data", "slow"})

#: The methods of the log's own lines.
BEGUN: Final = "audit.begun"
REPAIRED: Final = "audit.repaired"
DAMAGED: Final = "audit.damaged"
BEHIND: Final = "audit.behind"
CONTINUED: Final = "audit.continued"
DIFFERS: Final = "audit.differs"
REMOVED: Final = "audit.removed"
LOST: Final = "audit.lost"


class AuditCaller(Struct, frozen=True):
    """The connection that a request came on, as hex of its session, its address, and its user with the proof of it."""

    connection: str = ""
    address: str = ""
    user: str = ""
    mechanism: str = ""


#: The node itself.
NODE: Final = AuditCaller()


class AuditEvent(Struct, frozen=True, kw_only=True):
    """One event. There is no field for a value, a password or a key of encryption, and none of the others holds one.

    ``time_ms`` is Unix time, ``method`` service and method. ``key`` is a key of the store, or the bound of a range, and
    ``keys`` the number of keys where there are several; ``target`` is the user, the role or the thing that
    administration is about. ``code`` is 0 where there was no error. ``detail`` has numbers and short texts.
    """

    time_ms: int
    kind: Kind
    method: str
    caller: AuditCaller = NODE
    key: str | None = None
    keys: int | None = None
    target: str | None = None
    outcome: Outcome = "done"
    code: int = 0
    latency_us: int | None = None
    detail: Mapping[str, str | int] | None = None
