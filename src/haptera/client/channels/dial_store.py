"""How a client dials a store that is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haptera.kv_groups import KV_GROUPS
from haptera.peer import dial_address

if TYPE_CHECKING:
    from haptera.peer import Peer
    from haptera.transport import Address


async def dial_store(address: Address, /, *, timeout: float) -> Peer:
    """Dial as :func:`haptera.peer.dial_address` does, and ask for all groups of the kv service."""
    return await dial_address(address, timeout=timeout, groups=KV_GROUPS)
