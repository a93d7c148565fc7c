"""How many connections one address, and one user, may have, so that none takes those of all others."""

from __future__ import annotations

from haptera.peer import host_of
from haptera.security import network_of


class Shares:
    """The connections of each of some names, ``limit`` of them at most, or any number with 0."""

    __slots__ = ("_counts", "limit", "refused")

    def __init__(self, limit: int) -> None:
        self.limit: int = limit
        #: Connections that were refused.
        self.refused: int = 0
        self._counts: dict[str, int] = {}  # bounded as the connections are

    def take(self, name: str) -> bool:
        """Count a connection; False if it is one too many. An empty name has no limit."""
        if not self.limit or not name:
            return True
        count = self._counts.get(name, 0)
        if count >= self.limit:
            self.refused += 1
            return False
        self._counts[name] = count + 1
        return True

    def give_back(self, name: str) -> None:
        """A connection that was counted is gone."""
        left = self._counts.get(name, 0) - 1
        if left > 0:
            self._counts[name] = left
        else:
            self._counts.pop(name, None)


class ConnectionShares(Shares):
    """The connections of each address. Of IPv6 the first 64 bits are an address, and a Unix socket has none."""

    __slots__ = ()

    def take_of(self, remote: str) -> str | None:
        """Count a connection with this remote end (``Peer.remote``). Return its address, for `give_back`; None if it is
        one too many.
        """
        address = network_of(host_of(remote)) if self.limit else ""
        return address if self.take(address) else None
