"""A barrier: parties that go on together (spec/recipes.md, section 7)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from haptera.client.calls.argument_checks import checked_int, ttl_ms_of
from haptera.client.trouble import ends_watch_alone, passes
from haptera.errors import HapteraError, LeaseLost, LeaseNotFound, WaitTimeout
from haptera.key_rules import LEASE_TTL_MAX_MS, LEASE_TTL_MIN_MS, key_refusal
from haptera.peer import (
    Pauses,
    Timeout,  # who reads a public signature finds its types here
)

if TYPE_CHECKING:
    from haptera.client.calls.transact import Compare
    from haptera.client.database import Database
    from haptera.client.leases.lease import Lease
    from haptera.client.watches.event import Event

#: The most parties: the opening compares the entry of each, and the key `open`, of 128 compares in a transact.
PARTIES_MAX: Final = 127
#: The part of the keys of a barrier behind its name. `open` or the id of a party's lease follows.
BARRIER: Final = "/.barrier/"
#: The values of the key `open`. A barrier that was never opened has none.
OPEN: Final = b"1"
CLOSED: Final = b"0"


class Barrier:
    """Holds parties back until enough of them have come. Made by `Database.barrier`.

    It opens when so many parties wait at the same moment. A party that is gone does not count when its lease has ended.
    An open barrier lets everyone pass until it is reset.
    """

    __slots__ = ("_db", "_open_key", "_parties", "_prefix", "_timeout", "_ttl", "_wait")

    def __init__(self, db: Database, name: str, parties: int, ttl: float, wait: float | None, timeout: Timeout) -> None:
        ttl_ms_of(ttl, LEASE_TTL_MIN_MS, LEASE_TTL_MAX_MS)
        self._db = db
        self._prefix = name + BARRIER
        self._open_key = f"{self._prefix}open"
        self._parties = checked_int("parties", parties, 1, PARTIES_MAX)
        self._ttl = ttl
        self._wait = wait
        self._timeout: Timeout = timeout
        for key in (name, self._party_key(0)):
            refused = key_refusal(key)
            if refused is not None:
                raise refused.exception()

    async def wait(self) -> None:
        """Come to the barrier, and wait until it is open.

        A store that cannot be reached, or refuses for a reason that passes, is waited for once it was reached.

        Raises:
            WaitTimeout: The others have not come in the time that the barrier was made for.
        """
        if await self.is_open():
            return
        bound = asyncio.timeout(self._wait)
        try:
            async with bound:
                await self._pass()
        except TimeoutError as error:
            if not bound.expired():
                raise
            raise WaitTimeout(f"the other parties have not come to {self._prefix.removesuffix(BARRIER)}") from error

    async def is_open(self) -> bool:
        """Whether it lets everyone pass."""
        entry = await self._db.get(self._open_key, timeout=self._timeout)
        return entry is not None and entry.value == OPEN

    async def reset(self) -> bool:
        """Close it again, for the next time. Reset it when all parties have passed.

        Returns:
            Whether it was open. One that is not stays as it is, with the parties that wait.
        """
        result = await self._db.transact(
            compare=[(self._open_key, "value", "=", OPEN)],
            then=[("set", [self._open_key, CLOSED])],
            timeout=self._timeout,
        )
        return result.succeeded

    async def _pass(self) -> None:
        """Come with one lease after the other, until the barrier is open while this party's entry stands."""
        pauses, reached = Pauses(), False
        while True:
            try:
                async with self._db.lease(self._ttl, timeout=self._timeout) as lease:
                    reached = True
                    token = await self._come(lease)
                    if token is None or await self._opened(self._party_key(lease.id), token, pauses):
                        return
            except (LeaseNotFound, LeaseLost):
                pass  # it has ended before this party could come with it
            except HapteraError as error:
                if not reached or self._db.closed or not passes(error):
                    raise
            await pauses.wait()

    async def _come(self, lease: Lease) -> int | None:
        """Enter this party. The version of its entry; None if the barrier is open."""
        result = await lease.transact(
            compare=[(self._open_key, "value", "=", OPEN)],
            otherwise=[("set", [self._party_key(lease.id), b"", {"lease": lease.id}])],
            timeout=self._timeout,
        )
        return None if result.succeeded else result.version

    async def _opened(self, mine: str, token: int, pauses: Pauses) -> bool:
        """Wait until the barrier is open, over any number of watches; false if this party's entry is gone."""
        while True:
            try:
                return await self._watch(mine, token, pauses)
            except HapteraError as error:
                if self._db.closed or not ends_watch_alone(error):
                    raise
            await pauses.wait()

    async def _watch(self, mine: str, token: int, pauses: Pauses) -> bool:
        gathering = _Gathering(self._prefix)
        async with self._db.watch(prefix=self._prefix, initial=True, timeout=self._timeout) as events:
            while True:
                for event in await events.next_events():
                    gathering.note(event)
                    if gathering.open_version > token:
                        return True  # also if it was reset since then
                if not gathering.whole:
                    continue
                pauses.begin_anew()
                if gathering.parties.get(mine) != token:
                    return False
                if await self._open(gathering):
                    return True

    async def _open(self, gathering: _Gathering) -> bool:
        """Open the barrier if enough parties are there, each of them still when it opens."""
        first = gathering.first(self._parties)
        if len(first) < self._parties:
            return False
        compare: list[Compare] = [(key, "version", "=", version) for key, version in first]
        compare.append((self._open_key, "version", "=", gathering.open_version))
        result = await self._db.transact(compare=compare, then=[("set", [self._open_key, OPEN])], timeout=self._timeout)
        return result.succeeded

    def _party_key(self, lease: int) -> str:
        return f"{self._prefix}{lease:016x}"


class _Gathering:
    """The parties that are there, and the version of the key `open`, as a watch tells them."""

    def __init__(self, prefix: str) -> None:
        self.parties: dict[str, int] = {}  # by key, the versions of entries; bounded by the leases of a node
        self.open_version = 0
        self.whole = False
        self._open_key = f"{prefix}open"

    def note(self, event: Event) -> None:
        """Take over what a watch tells."""
        if event.kind == "synced":
            self.whole = True
        elif event.key == self._open_key:
            self.open_version = 0 if event.value is None else event.version
        elif event.value is None:
            self.parties.pop(event.key, None)
        else:
            self.parties[event.key] = event.version

    def first(self, count: int) -> list[tuple[str, int]]:
        """The parties that came first since the barrier was last reset, with the versions of their entries."""
        present = [(key, version) for key, version in self.parties.items() if version > self.open_version]
        return sorted(present, key=lambda party: party[1])[:count]
