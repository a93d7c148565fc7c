"""Holders of leases: each grants, renews and revokes leases, brings keys of its own to them, and writes behind fences.

A holder knows when it sent each renewal that was answered with a time. No lease may be over before its whole time has
passed since then, by any sign: an answer to the holder, or an event that a watcher was told. At the end the changes of
the keys are replayed with the leases that the calls have named: a lease takes all of its keys with it at one revision
and no other key, nothing comes to a lease that is over, and a fence holds exactly as long as its entry.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from haptera.errors import Fenced, KeyNotFound, LeaseNotFound
from tests.simulation.calls import REFUSED, TIMEOUT_S, Calls, shown
from tests.simulation.promises import require

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

    from haptera import Database
    from tests.simulation.answers import Answers, Span
    from tests.simulation.transcript import Transcript

#: Keys of each holder.
HELD_KEYS: Final = 3
TTLS_S: Final = (1.0, 1.5, 4.0)
#: The longest wait between two calls: hardly any, less than a lease, more than the shortest.
PAUSES_S: Final = (0.005, 0.3, 2.0)
#: Seconds that a lease may be seen to be over too early, by the rounding of clocks to milliseconds.
ROUNDING_S: Final = 0.002

WEIGHTS: Final = {
    "grant": 3,
    "renew": 5,
    "set_held": 5,
    "set_both": 2,
    "set_plain": 1,
    "set_fenced": 5,
    "persist": 1,
    "rename": 1,
    "revoke": 1,
    "get_held": 2,
}


@dataclass
class Lease:
    """A lease as its holder knows it. It lives ``until`` that time at least, unless it ``may_be_revoked``; by a sign
    that came at the time ``over_by`` it was over.
    """

    id: int
    ttl: float
    until: float
    may_be_revoked: bool = False
    over_by: float | None = None

    def is_renewed(self, sent: float) -> None:
        """Note a renewal that was answered with a time."""
        self.until = max(self.until, sent + self.ttl)
        self.check()

    def is_over(self, now: float) -> None:
        """Note a sign that it is over."""
        self.over_by = now if self.over_by is None else min(self.over_by, now)
        self.check()

    def check(self) -> None:
        """Hold the signs against the renewals. Raises PromiseBroken."""
        early = self.over_by is not None and self.over_by < self.until - ROUNDING_S
        require(
            self.may_be_revoked or not early,
            f"the lease {self.id} was over by {self.over_by}, and had time until {self.until}",
        )


@dataclass(frozen=True)
class Asked:
    """The lease that a change was to bring a key to, and its fence."""

    lease: int | None = None
    fence: int | None = None


@dataclass(frozen=True)
class Refusal:
    """A call that was refused for its ``token``, or for its lease."""

    label: str
    span: Span
    token: int


class Holder(Calls):
    """One holder: makes one call after the other, and checks each answer."""

    kind = "holder"

    def __init__(
        self, number: int, db: Database, answers: Answers, choices: random.Random, transcript: Transcript
    ) -> None:
        super().__init__(number, db, answers, choices, transcript)
        self._keys = [f"held/{number}/{at}" for at in range(HELD_KEYS)]
        self._tokens: list[int] = []
        self.prefix = f"held/{number}/"
        self.leases: dict[int, Lease] = {}
        #: Each value that was sent, by key.
        self.asked: dict[tuple[str, bytes], Asked] = {}
        self.fenced: list[Refusal] = []
        self.without_lease: list[Refusal] = []

    async def calls(self, count: int) -> None:
        """Make so many calls, with pauses between them."""
        await self._grant()
        for _ in range(count):
            name = self._choices.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
            await getattr(self, f"_{name}")()
            await asyncio.sleep(self._choices.uniform(0.0, self._choices.choice(PAUSES_S)))

    # -- leases

    async def _grant(self) -> None:
        ttl = self._choices.choice(TTLS_S)
        lease = await self._ask(f"grant a lease of {ttl} s", lambda: self._db.grant_lease(ttl, timeout=TIMEOUT_S))
        if lease is not REFUSED:
            self._note_change("grant a lease", lease, {})
            self.leases[lease] = Lease(lease, ttl, self._sent_at + ttl)

    async def _renew(self) -> None:
        leases = list(self.leases.values())[-2:]
        ids = [lease.id for lease in leases]
        answer = await self._ask(f"renew {ids}", lambda: self._db.renew_leases(ids, timeout=TIMEOUT_S))
        for lease, left in zip(leases, [] if answer is REFUSED else answer, strict=False):
            if left is None:
                lease.is_over(self._now())
            else:
                require(left == lease.ttl, f"the lease {lease.id} of {lease.ttl} s was renewed for {left} s")
                lease.is_renewed(self._sent_at)

    async def _revoke(self) -> None:
        lease = self._lease()
        if lease is None:
            return
        lease.may_be_revoked = True
        try:
            await self._ask(f"revoke {lease.id}", lambda: self._db.revoke_lease(lease.id, timeout=TIMEOUT_S))
        except LeaseNotFound:
            self.without_lease.append(Refusal("revoke", self._span, lease.id))

    # -- keys

    async def _set_held(self) -> None:
        lease, key = self._lease(), self._choice()
        if lease is not None:
            await self._write([key], lease=lease, fence=self._token() if self._choices.random() < 0.2 else None)

    async def _set_both(self) -> None:
        lease = self._lease()
        if lease is not None:
            await self._write(self._keys[:2], lease=lease)

    async def _set_plain(self) -> None:
        await self._write([self._choice()])

    async def _set_fenced(self) -> None:
        """A key that belongs to no lease, as long as a token holds."""
        await self._write([f"{self.prefix}fenced"], fence=self._token())

    async def _write(self, keys: list[str], *, lease: Lease | None = None, fence: int | None = None) -> None:
        value = self._value()
        values = dict.fromkeys(keys, value)
        number = None if lease is None else lease.id
        self.asked |= {(key, value): Asked(number, fence) for key in keys}
        label = f"set {' and '.join(keys)} {shown(value)} lease {number} fence {fence}"
        try:
            version = await self._ask(
                label, lambda: self._db.set_many(values, lease=number, fence=fence, timeout=TIMEOUT_S), values
            )
        except Fenced:
            assert fence is not None
            self.fenced.append(Refusal(label, self._span, fence))
        except LeaseNotFound:
            assert lease is not None
            lease.is_over(self._now())
            self.without_lease.append(Refusal(label, self._span, lease.id))
        else:
            if version is not REFUSED:
                self._note_change(label, version, values)
                if lease is not None:
                    self._tokens.append(version)

    async def _persist(self) -> None:
        key = self._choice()
        await self._change_as_it_is(f"persist {key}", lambda: self._db.persist(key, timeout=TIMEOUT_S))

    async def _rename(self) -> None:
        key, other = self._choices.sample(self._keys, 2)
        await self._change_as_it_is(f"rename {key} {other}", lambda: self._db.rename(key, other, timeout=TIMEOUT_S))

    async def _change_as_it_is(self, label: str, call: Callable[[], Awaitable[int]]) -> None:
        """Change a key and not its value."""
        with suppress(KeyNotFound):
            version = await self._ask(label, call)
            if version is not REFUSED:
                self._note_change(label, version, {})

    async def _get_held(self) -> None:
        entries = await self._ask("get all", lambda: self._db.get_many(self._keys, timeout=TIMEOUT_S))
        if entries is not REFUSED:
            found = [entry for entry in entries if entry is not None]
            self._note_entries("get all", self._db.revision, self._keys, found)

    # -- choices

    def _choice(self) -> str:
        return self._choices.choice(self._keys)

    def _lease(self) -> Lease | None:
        """One of the last leases, which may be over."""
        return self._choices.choice(list(self.leases.values())[-2:]) if self.leases else None

    def _token(self) -> int | None:
        """One of the last tokens, which may not hold any more; None without one."""
        return self._choices.choice(self._tokens[-3:]) if self._tokens else None
