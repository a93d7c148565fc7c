"""The groups of the kv service that this software has, by their capabilities (spec/protocol.md, sections 4.1 and 7).

A client asks for each of them, and a node accepts each. Peers that only exchange messages know nothing of them.
"""

from __future__ import annotations

from typing import Final

TTL: Final = "kv_ttl"
TRANSACT: Final = "kv_transact"
WATCH: Final = "kv_watch"
HISTORY: Final = "kv_history"
LEASES: Final = "kv_leases"

#: Every group.
KV_GROUPS: Final = (TTL, TRANSACT, WATCH, HISTORY, LEASES)
