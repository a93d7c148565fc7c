"""How many connections one address may have, so that no machine takes those of all others."""

from __future__ import annotations

from haptera.security import network_of


class ConnectionShares:
    """The connections of each address, ``limit`` of them at most, or any number with 0. Of IPv6 the first 64 bits are
    an address, and a Unix socket has none.
    """

    __slots__ = ("_counts", "limit", "refused")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        #: Connections that were refused.
        self.refused = 0
        self._counts: dict[str, int] = {}  # bounded as the connections are

    def take(self, remote: str) -> str | None:
        """Count a connection with this remote end (``Peer.remote``). Return its address, for `give_back`; None if it is
        one too many. An empty address has no limit.
        """
        host, colon, _ = remote.rpartition(":")
        if not self.limit or not colon:
            return ""
        address = network_of(host.strip("[]"))
        count = self._counts.get(address, 0)
        if count >= self.limit:
            self.refused += 1
            return None
        self._counts[address] = count + 1
        return address

    def give_back(self, address: str) -> None:
        """A connection that was counted is gone."""
        left = self._counts.get(address, 0) - 1
        if left > 0:
            self._counts[address] = left
        else:
            self._counts.pop(address, None)
