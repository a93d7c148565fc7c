"""Clients that change a store under faults, and hold each answer against a record of their own.

Each caller has keys that it alone writes, so it knows what they may hold. All of them count with one key, and write and
read one pair of keys that have the same value at any revision. `answers` takes what they were told, too, for the end.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from haptera.errors import KeyNotFound, TransactionConflict, VersionMismatch
from tests.simulation.calls import LARGE, REFUSED, TIMEOUT_S, Calls, shown
from tests.simulation.claims import Claim, Shared
from tests.simulation.lives import Life
from tests.simulation.promises import PromiseBroken

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from haptera import Database, Entry
    from tests.simulation.answers import Answers
    from tests.simulation.transcript import Transcript

CALLERS: Final = 3
#: Keys of each caller.
OWN_KEYS: Final = 3
COUNTER: Final = "count"
PAIR: Final = ("pair/a", "pair/b")
#: The longest wait between two calls of one caller.
PAUSE_S: Final = 0.01
WEIGHTS: Final = {
    "get": 4,
    "set": 6,
    "set_if_version": 2,
    "delete": 2,
    "increment": 5,
    "set_own": 2,
    "clear_own": 1,
    "set_pair": 2,
    "get_pair": 2,
    "scan_pair": 1,
    "scan_own": 1,
    "get_past": 1,
    "scan_past": 1,
    "set_session": 2,
    "get_session": 2,
    "expire_session": 1,
    "persist_session": 1,
    "set_and_count": 3,
    "replace_pair": 2,
}

#: Times to live of a caller's session: some end between two calls, some in a restart, some after the run.
TTLS_S: Final = (0.001, 0.02, 0.5, 3600.0)


class Caller(Calls):
    """One caller of a database: makes one call after the other, and checks each answer."""

    kind = "caller"

    def __init__(
        self,
        number: int,
        db: Database,
        answers: Answers,
        choices: random.Random,
        transcript: Transcript,
        shared: Shared,
    ) -> None:
        super().__init__(number, db, answers, choices, transcript)
        self._shared = shared
        self.claims = {key: Claim() for key in own_keys(number)}
        #: A key that expires. Its end is a change that no call makes, at any time; and never taken back.
        self.session = (f"session/{number}", Claim())
        self._life = Life()

    async def calls(self, count: int) -> None:
        """Make so many calls, with pauses between them."""
        for _ in range(count):
            name = self._choices.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
            await getattr(self, f"_{name}")()
            await asyncio.sleep(self._choices.uniform(0.0, PAUSE_S))

    async def check(self, db: Database) -> None:
        """Read all that this caller has written, when nothing disturbs it."""
        for key in (*self.claims, self.session[0]):
            self._sent_at = self._now()
            entry = await db.get(key)
            self._tell(f"finds {key} = {shown(None if entry is None else bytes(entry.value))}")
            if key in self.claims:
                self.claims[key].seen(entry)
            else:
                self._see_session(entry)

    async def _get(self) -> None:
        key, claim = self._own()
        entry = await self._ask(f"get {key}", lambda: self._db.get(key, timeout=TIMEOUT_S))
        if entry is not REFUSED:
            claim.seen(entry)
            self._note_entry(key, entry)

    async def _set(self) -> None:
        key, claim = self._own()
        value = self._value()
        await self._change(
            f"set {key} {shown(value)}", key, claim, value, lambda: self._db.set(key, value, timeout=TIMEOUT_S)
        )

    async def _set_if_version(self) -> None:
        key, claim = self._own()
        value, version = self._value(), claim.version
        if not version:
            return
        label = f"set {key} {shown(value)} if version {version}"
        try:
            await self._change(
                label, key, claim, value, lambda: self._db.set(key, value, if_version=version, timeout=TIMEOUT_S)
            )
        except VersionMismatch:
            # A delete, or one of the open changes, has made it another version.
            if claim.value is not None and not claim.open:
                raise PromiseBroken(f"version {version} of {key} was acknowledged, and then it was another") from None

    async def _delete(self) -> None:
        key, claim = self._own()

        async def delete() -> int:
            await self._db.delete(key, timeout=TIMEOUT_S)
            return 0

        await self._change(f"delete {key}", key, claim, None, delete)

    async def _set_own(self) -> None:
        """All keys of its own at one revision: watches are told of it in parts."""
        values = dict.fromkeys(self.claims, self._value(LARGE))
        label = f"set all {shown(next(iter(values.values())))}"
        version = await self._change_own(label, values, lambda: self._db.set_many(values, timeout=TIMEOUT_S))
        if version is not REFUSED:
            self._note_change(label, version, values)

    async def _clear_own(self) -> None:
        prefix = next(iter(self.claims)).rpartition("/")[0]

        async def clear() -> int:
            await self._db.clear(prefix=f"{prefix}/", timeout=TIMEOUT_S)
            return 0

        await self._change_own(f"clear {prefix}/", dict.fromkeys(self.claims), clear)

    async def _change_own(
        self, label: str, values: Mapping[str, bytes | None], call: Callable[[], Awaitable[int]]
    ) -> Any:
        """Change all keys of its own; the version, or `REFUSED`."""

        def may_be_made() -> None:
            for key, value in values.items():
                self.claims[key].open.append(value)

        version = await self._ask(label, call, values, may_be_made)
        if version is not REFUSED:
            for key, value in values.items():
                self.claims[key].changed(value, version)
        return version

    async def _increment(self) -> None:
        number = await self._ask(
            "increment", lambda: self._db.increment(COUNTER, 1, timeout=TIMEOUT_S), open_=self._open_count
        )
        if number is not REFUSED:
            self._shared.incremented(number)
            self._note_change("increment", self._db.revision, {COUNTER: b"%d" % number})

    async def _set_pair(self) -> None:
        both = dict.fromkeys(PAIR, self._value())
        label = f"set both {shown(both[PAIR[0]])}"
        version = await self._ask(label, lambda: self._db.set_many(both, timeout=TIMEOUT_S), both)
        if version is not REFUSED:
            self._note_change(label, version, both)

    async def _set_and_count(self) -> None:
        """A key of its own and the counter in one transact."""
        key, claim = self._own()
        value = self._value()

        def may_be_made() -> None:
            claim.open.append(value)
            self._open_count()

        label = f"set {key} {shown(value)} and increment"
        result = await self._ask(
            label,
            lambda: self._db.transact(then=[("set", [key, value]), ("increment", [COUNTER, 1])], timeout=TIMEOUT_S),
            {key: value},
            may_be_made,
        )
        if result is not REFUSED:
            version, number = result.results
            claim.changed(value, version)
            self._shared.incremented(number)
            self._note_change(label, version, {key: value, COUNTER: b"%d" % number})

    async def _replace_pair(self) -> None:
        """The pair, read and written in one transaction."""
        both = dict.fromkeys(PAIR, self._value())

        async def replace() -> int | None:
            async with self._db.transaction(timeout=TIMEOUT_S) as tx:
                self._same(await tx.get_many(PAIR))
                for key, value in both.items():
                    tx.set(key, value)
            return tx.version

        label = f"replace both by {shown(both[PAIR[0]])}"
        with suppress(TransactionConflict):
            version = await self._ask(label, replace, both)
            if version is not REFUSED:
                self._note_change(label, version, both)

    async def _get_pair(self) -> None:
        entries = await self._ask("get both", lambda: self._db.get_many(PAIR, timeout=TIMEOUT_S))
        if entries is not REFUSED:
            self._same(entries)
            self._note_entries("get both", self._db.revision, PAIR, [entry for entry in entries if entry is not None])

    async def _scan_pair(self) -> None:
        entries = await self._scan("pair/", PAIR)
        if entries is not REFUSED:
            self._same(entries or [None, None])

    async def _scan_own(self) -> None:
        """The keys that callers have of their own, all at one revision."""
        await self._scan("own/", OWN)

    async def _scan(self, prefix: str, keys: Sequence[str]) -> Any:
        async def scan() -> list[Entry]:
            return [entry async for entry in pages]

        pages = self._db.scan(prefix=prefix, timeout=TIMEOUT_S)
        entries = await self._ask(f"scan {prefix}", scan)
        if entries is not REFUSED:
            assert pages.revision is not None
            self._note_entries(f"scan {prefix}", pages.revision, keys, entries)
        return entries

    async def _get_past(self) -> None:
        """Both of the pair, as they were at a revision that is known."""
        at = self._choices.randint(0, self._answers.newest)
        label = f"get both at {at}"
        entries = await self._ask(label, lambda: self._db.get_many(PAIR, at_revision=at, timeout=TIMEOUT_S))
        if entries is not REFUSED:
            self._same(entries)
            found = [entry for entry in entries if entry is not None]
            self._note_entries(label, at, PAIR, found, of_the_past=True)

    async def _scan_past(self) -> None:
        at = self._choices.randint(0, self._answers.newest)

        async def scan() -> list[Entry]:
            return [entry async for entry in self._db.scan(prefix="own/", at_revision=at, timeout=TIMEOUT_S)]

        entries = await self._ask(f"scan own/ at {at}", scan)
        if entries is not REFUSED:
            self._note_entries(f"scan own/ at {at}", at, OWN, entries, of_the_past=True)

    async def _set_session(self) -> None:
        key, value, ttl = self.session[0], self._value(), self._choices.choice(TTLS_S)
        label = f"set {key} {shown(value)} for {ttl} s"
        await self._live(label, ttl, lambda: self._db.set(key, value, ttl=ttl, timeout=TIMEOUT_S), value)

    async def _expire_session(self) -> None:
        key, ttl = self.session[0], self._choices.choice(TTLS_S)
        await self._live(f"expire {key} in {ttl} s", ttl, lambda: self._db.expire(key, ttl, timeout=TIMEOUT_S))

    async def _persist_session(self) -> None:
        key = self.session[0]
        await self._live(f"persist {key}", None, lambda: self._db.persist(key, timeout=TIMEOUT_S))

    async def _live(
        self, label: str, ttl: float | None, call: Callable[[], Awaitable[int]], value: bytes | None = None
    ) -> None:
        """Give the session a time to live, or none, and a value if it is given one."""
        key, claim = self.session
        writes = {} if value is None else {key: value}
        if ttl is not None:
            claim.open.append(None)

        def may_be_made() -> None:
            self._life.may_have_changed()
            claim.open.extend(writes.values())

        try:
            version = await self._ask(label, call, writes, may_be_made)
        except KeyNotFound:
            self._see_session(None)
            return
        if version is REFUSED:
            return
        claim.changed(claim.value if value is None else value, version)
        self._note_change(label, version, writes)
        if ttl is None:
            self._life.persists()
        else:
            self._life.begins(self._sent_at, self._now(), ttl)

    async def _get_session(self) -> None:
        key = self.session[0]
        entry = await self._ask(f"get {key}", lambda: self._db.get(key, timeout=TIMEOUT_S))
        if entry is not REFUSED:
            self._see_session(entry)

    def _see_session(self, entry: Entry | None) -> None:
        self.session[1].seen(entry)
        if not self._shared.clock_was_set():
            self._life.seen(self._sent_at, self._now(), alive=entry is not None)

    # -- the parts of a call

    async def _change(
        self, label: str, key: str, claim: Claim, value: bytes | None, call: Callable[[], Awaitable[int]]
    ) -> None:
        version = await self._ask(label, call, {key: value}, lambda: claim.open.append(value))
        if version is not REFUSED:
            claim.changed(value, version)
            if version:
                self._note_change(label, version, {key: value})

    def _same(self, entries: list[Entry | None]) -> None:
        values = {None if entry is None else bytes(entry.value) for entry in entries}
        if len(values) != 1 or len(entries) != len(PAIR):
            raise PromiseBroken(f"the pair was seen half changed: {sorted(map(shown, values))}")

    def _open_count(self) -> None:
        self._shared.count_open += 1

    def _own(self) -> tuple[str, Claim]:
        key = self._choices.choice(list(self.claims))
        return key, self.claims[key]


def own_keys(number: int) -> list[str]:
    """The keys that one caller alone writes."""
    return [f"own/{number}/{at}" for at in range(OWN_KEYS)]


OWN: Final = [key for number in range(1, CALLERS + 1) for key in own_keys(number)]
