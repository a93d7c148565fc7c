"""Request rates: how many requests a connection and a user may make in a second, and what waits for the others.

A bucket for each connection and one for each user, of all its connections together. A batch of requests is judged at
once: it takes as many tokens as it has requests and both buckets have tokens. Time is passed in, in seconds.
"""

from __future__ import annotations

import math
from typing import Final

#: Buckets of users that are kept: more than there are users and tokens. Beyond it the full ones go, which are as good
#: as none.
USERS_MAX: Final = 32_768


class TokenBucket:
    """Tokens that come back with time, ``rate`` in a second, up to ``size`` of them; it begins with all."""

    __slots__ = ("_at", "_rate", "_size", "_tokens")

    def __init__(self, rate: float, size: float, now: float) -> None:
        self._rate, self._size = rate, size
        self._tokens, self._at = size, now

    def left(self, now: float) -> float:
        """How many tokens there are."""
        return min(self._size, self._tokens + max(0.0, now - self._at) * self._rate)

    def full(self, now: float) -> bool:
        """Whether no token is missing."""
        return self.left(now) >= self._size

    def take(self, tokens: int, now: float) -> None:
        """Take tokens that are there."""
        self._tokens = self.left(now) - tokens
        self._at = now

    def wait_ms(self, now: float) -> int:
        """The milliseconds until there is a token, at least one."""
        return max(1, math.ceil((1 - self.left(now)) * 1000 / self._rate))


class RequestRates:
    """The buckets of a node. A rate of 0 has none; a burst is of so many seconds, and of a request at least."""

    def __init__(self, session_rate: float, user_rate: float, burst_s: float) -> None:
        self._session_rate, self._user_rate, self._burst_s = session_rate, user_rate, burst_s
        self._users: dict[str, TokenBucket] = {}

    @property
    def any(self) -> bool:
        """Whether there is a rate at all."""
        return bool(self._session_rate or self._user_rate)

    def session(self, now: float) -> TokenBucket | None:
        """A bucket for a connection; None where there is no rate for one."""
        return self._bucket(self._session_rate, now)

    def admits(self, session: TokenBucket | None, user: str, count: int, now: float) -> tuple[int, int]:
        """Take the tokens for a batch: how many of its requests are admitted, and the milliseconds that the others
        have to wait.
        """
        buckets = [each for each in (session, self._user(user, now)) if each is not None]
        admitted = min([count, *(int(each.left(now)) for each in buckets)])
        for each in buckets:
            each.take(admitted, now)
        return admitted, 0 if admitted == count else max(each.wait_ms(now) for each in buckets)

    def _user(self, user: str, now: float) -> TokenBucket | None:
        found = self._users.get(user)
        if found is None and (found := self._bucket(self._user_rate, now)) is not None:
            if len(self._users) >= USERS_MAX:
                self._users = {name: bucket for name, bucket in self._users.items() if not bucket.full(now)}
            self._users[user] = found
        return found

    def _bucket(self, rate: float, now: float) -> TokenBucket | None:
        return TokenBucket(rate, max(1.0, rate * self._burst_s), now) if rate else None
