"""Operations on keys that end: with times to live, leases and fences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tests.linearizability.history import Told

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

    from haptera import Database

    Ask = Callable[[], Awaitable[Told]]

#: Some end between two operations, some in a restart, some hardly ever.
TTLS_S: Final = (0.002, 0.01, 0.05, 60.0)
#: The shortest leases that there are, because a history is short.
LEASE_TTLS_S: Final = (1.0, 1.2)


class Endings:
    """A part of a workload. ``choices`` is its source of randomness."""

    def __init__(self, choices: random.Random, key: Callable[[], str], value: Callable[[], bytes]) -> None:
        self._choices = choices
        self._key = key
        self._value = value
        self._leases: list[int] = []
        self._tokens: list[int] = []

    def set_mortal(self, db: Database, timeout: float) -> tuple[dict[str, Any], Ask]:
        """A set with a time to live."""
        key, value, ttl = self._key(), self._value(), self._choices.choice(TTLS_S)

        async def ask() -> Told:
            return Told(revision=await db.set(key, value, ttl=ttl, timeout=timeout))

        return {"key": key, "value": value, "ttl_ms": round(ttl * 1000)}, ask

    def expire(self, db: Database, timeout: float) -> tuple[dict[str, Any], Ask]:
        """Another time to live for a key, or none."""
        key, ttl = self._key(), self._choices.choice((None, *TTLS_S))

        async def ask() -> Told:
            if ttl is None:
                return Told(revision=await db.persist(key, timeout=timeout))
            return Told(revision=await db.expire(key, ttl, timeout=timeout))

        return {"key": key, "ttl_ms": 0 if ttl is None else round(ttl * 1000)}, ask

    def grant_lease(self, db: Database, timeout: float) -> tuple[dict[str, Any], Ask]:
        """A lease, which other operations bring keys to."""
        ttl = self._choices.choice(LEASE_TTLS_S)

        async def ask() -> Told:
            lease = await db.grant_lease(ttl, timeout=timeout)
            self._leases.append(lease)
            return Told(revision=lease)

        return {}, ask

    def set_leased(self, db: Database, timeout: float) -> tuple[dict[str, Any], Ask]:
        """A set with one of the last leases, which may be over; without one a plain set."""
        key, value = self._key(), self._value()
        lease = self._choices.choice(self._leases[-3:]) if self._leases else None

        async def ask() -> Told:
            version = await db.set(key, value, lease=lease, timeout=timeout)
            if lease is not None:
                self._tokens.append(version)
            return Told(revision=version)

        return {"key": key, "value": value, **({} if lease is None else {"lease": lease})}, ask

    def set_fenced(self, db: Database, timeout: float) -> tuple[dict[str, Any], Ask]:
        """A set behind one of the last tokens, which may not stand; without one a plain set."""
        key, value = self._key(), self._value()
        fence = self._choices.choice(self._tokens[-3:]) if self._tokens else None

        async def ask() -> Told:
            return Told(revision=await db.set(key, value, fence=fence, timeout=timeout))

        return {"key": key, "value": value, **({} if fence is None else {"fence": fence})}, ask
