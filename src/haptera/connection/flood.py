"""A bound for frames that make work and do none (spec/protocol.md, section 8)."""

from __future__ import annotations

from haptera.errors import Code, RemoteProtocolError


class FloodError(RemoteProtocolError):
    """The peer sent too many frames without work; its connection ends with GOAWAY, not with ERROR."""

    def __init__(self) -> None:
        super().__init__(Code.RATE_LIMITED, "too many frames without work were sent")


class Bucket:
    """Tokens that come back with time; each frame without work takes one.

    ``burst`` is how many there are at most and at the beginning, ``rate`` how many come back in a second.
    """

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, burst: int, rate: float, now: float) -> None:
        self._burst = burst
        self._rate = rate
        self._tokens = float(burst)
        self._at = now

    def left(self, now: float) -> float:
        """Return how many tokens there are."""
        return min(self._burst, self._tokens + (now - self._at) * self._rate)

    def spend(self, now: float) -> None:
        """Take a token. Raises ``FloodError`` if there is none."""
        left = self.left(now)
        if left < 1:
            raise FloodError
        self._tokens = left - 1
        self._at = now
