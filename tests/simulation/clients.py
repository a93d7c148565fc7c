"""Clients that change a store under faults, and hold each answer against a record of their own.

Each caller has keys that it alone writes, so it knows what they may hold. All of them count with one key, and write and
read one pair of keys that have the same value at any revision.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from haptera import Entry
from haptera.errors import (
    ConnectionLost,
    HapteraError,
    RemoteProtocolError,
    ServerError,
    TransactionConflict,
    VersionMismatch,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

    from haptera import Database
    from tests.simulation.transcript import Transcript

#: Keys of each caller.
OWN_KEYS: Final = 3
COUNTER: Final = "count"
PAIR: Final = ("pair/a", "pair/b")
TIMEOUT_S: Final = 5.0
#: The longest wait between two calls of one caller.
PAUSE_S: Final = 0.01
#: Sizes of values: small ones, and some that fill a segment soon.
SIZES: Final = (8, 8, 8, 300, 9000)

WEIGHTS: Final = {
    "get": 4,
    "set": 6,
    "set_if_version": 2,
    "delete": 2,
    "increment": 5,
    "set_pair": 2,
    "get_pair": 2,
    "scan_pair": 1,
    "set_session": 2,
    "get_session": 2,
    "set_and_count": 3,
    "replace_pair": 2,
}

#: Times to live of a caller's session: some end between two calls, some in a restart, some after the run.
TTLS_S: Final = (0.001, 0.02, 0.5, 3600.0)


class PromiseBroken(AssertionError):
    """An answer that no order of the calls explains."""


@dataclass
class Claim:
    """A key that one caller alone writes: the value that it knows of, and the changes whose outcome it does not know.
    Each of them may have happened, or happen late; never twice.
    """

    value: bytes | None = None
    version: int = 0
    open: list[bytes | None] = field(default_factory=list)

    def changed(self, value: bytes | None, version: int) -> None:
        """Note an acknowledged change."""
        if version and version <= self.version:
            raise PromiseBroken(f"version {version} was given after version {self.version}")
        self.value = value
        self.version = max(self.version, version)

    def seen(self, entry: Entry | None) -> None:
        """Hold what was read against the record."""
        value = None if entry is None else bytes(entry.value)
        if entry is not None and entry.version < self.version:
            raise PromiseBroken(f"version {entry.version} was read after version {self.version}")
        if value == self.value:
            return
        if value not in self.open:
            raise PromiseBroken(f"{_shown(value)} was read, and {_shown(self.value)} was acknowledged")
        self.open.remove(value)
        self.value = value
        self.version = self.version if entry is None else entry.version


@dataclass
class Shared:
    """The record of the keys that all callers change."""

    counted: set[int] = field(default_factory=set)
    count_open: int = 0

    def incremented(self, number: int) -> None:
        """Note an answer to an increment by one, which no other increment may have had."""
        if number in self.counted:
            raise PromiseBroken(f"two increments were answered with {number}")
        self.counted.add(number)

    def counter_is(self, number: int) -> None:
        """Hold the counter against all increments."""
        done, most = len(self.counted), len(self.counted) + self.count_open
        if not done <= number <= most or (self.counted and number < max(self.counted)):
            raise PromiseBroken(
                f"the counter is {number} after {done} acknowledged increments and {self.count_open} open"
            )


class Caller:
    """One caller of a database: makes one call after the other, and checks each answer."""

    def __init__(
        self, number: int, db: Database, shared: Shared, choices: random.Random, transcript: Transcript
    ) -> None:
        self.name = f"caller {number}"
        self._db = db
        self._shared = shared
        self._choices = choices
        self._transcript = transcript
        self._written = 0
        self.claims = {f"own/{number}/{at}": Claim() for at in range(OWN_KEYS)}
        #: A key that expires. Its end is a change that no call makes, at any time; and never taken back.
        self.session = (f"session/{number}", Claim())

    async def calls(self, count: int) -> None:
        """Make so many calls, with pauses between them."""
        for _ in range(count):
            name = self._choices.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
            await getattr(self, f"_{name}")()
            await asyncio.sleep(self._choices.uniform(0.0, PAUSE_S))

    async def check(self, db: Database) -> None:
        """Read all that this caller has written, when nothing disturbs it."""
        for key, claim in (*self.claims.items(), self.session):
            entry = await db.get(key)
            self._tell(f"finds {key} = {_shown(None if entry is None else bytes(entry.value))}")
            claim.seen(entry)

    async def _get(self) -> None:
        key, claim = self._own()
        entry = await self._ask(f"get {key}", lambda: self._db.get(key, timeout=TIMEOUT_S))
        if entry is not REFUSED:
            claim.seen(entry)

    async def _set(self) -> None:
        key, claim = self._own()
        value = self._value()
        await self._change(
            f"set {key} {_shown(value)}", claim, value, lambda: self._db.set(key, value, timeout=TIMEOUT_S)
        )

    async def _set_if_version(self) -> None:
        key, claim = self._own()
        value, version = self._value(), claim.version
        if not version:
            return
        label = f"set {key} {_shown(value)} if version {version}"
        try:
            await self._change(
                label, claim, value, lambda: self._db.set(key, value, if_version=version, timeout=TIMEOUT_S)
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

        await self._change(f"delete {key}", claim, None, delete)

    async def _increment(self) -> None:
        number = await self._ask(
            "increment", lambda: self._db.increment(COUNTER, 1, timeout=TIMEOUT_S), self._open_count
        )
        if number is not REFUSED:
            self._shared.incremented(number)

    async def _set_pair(self) -> None:
        value = self._value()
        await self._ask(
            f"set both {_shown(value)}", lambda: self._db.set_many(dict.fromkeys(PAIR, value), timeout=TIMEOUT_S)
        )

    async def _set_and_count(self) -> None:
        """A key of its own and the counter in one transact."""
        key, claim = self._own()
        value = self._value()

        def may_be_made() -> None:
            claim.open.append(value)
            self._open_count()

        result = await self._ask(
            f"set {key} {_shown(value)} and increment",
            lambda: self._db.transact(then=[("set", [key, value]), ("increment", [COUNTER, 1])], timeout=TIMEOUT_S),
            may_be_made,
        )
        if result is not REFUSED:
            version, number = result.results
            claim.changed(value, version)
            self._shared.incremented(number)

    async def _replace_pair(self) -> None:
        """The pair, read and written in one transaction."""
        value = self._value()

        async def replace() -> int | None:
            async with self._db.transaction(timeout=TIMEOUT_S) as tx:
                self._same(await tx.get_many(PAIR))
                for key in PAIR:
                    tx.set(key, value)
            return tx.version

        with suppress(TransactionConflict):
            await self._ask(f"replace both by {_shown(value)}", replace)

    async def _get_pair(self) -> None:
        entries = await self._ask("get both", lambda: self._db.get_many(PAIR, timeout=TIMEOUT_S))
        if entries is not REFUSED:
            self._same(entries)

    async def _scan_pair(self) -> None:
        async def scan() -> list[Entry]:
            return [entry async for entry in self._db.scan(prefix="pair/", timeout=TIMEOUT_S)]

        entries = await self._ask("scan both", scan)
        if entries is not REFUSED:
            self._same(entries or [None, None])

    async def _set_session(self) -> None:
        key, claim = self.session
        value, ttl = self._value(), self._choices.choice(TTLS_S)
        await self._change(
            f"set {key} {_shown(value)} for {ttl} s",
            claim,
            value,
            lambda: self._db.set(key, value, ttl=ttl, timeout=TIMEOUT_S),
        )
        claim.open.append(None)

    async def _get_session(self) -> None:
        key, claim = self.session
        entry = await self._ask(f"get {key}", lambda: self._db.get(key, timeout=TIMEOUT_S))
        if entry is not REFUSED:
            claim.seen(entry)

    # -- the parts of a call

    async def _change(self, label: str, claim: Claim, value: bytes | None, call: Callable[[], Awaitable[int]]) -> None:
        version = await self._ask(label, call, lambda: claim.open.append(value))
        if version is not REFUSED:
            claim.changed(value, version)

    async def _ask(
        self, label: str, call: Callable[[], Awaitable[Any]], open_: Callable[[], None] | None = None
    ) -> Any:
        """Make a call; `REFUSED` without an answer. ``open_`` is called where it may have changed something."""
        self._tell(label)
        try:
            answer = await call()
        except (VersionMismatch, TransactionConflict):
            self._tell(f"{label}: another version")
            raise
        except (ServerError, ConnectionLost, RemoteProtocolError) as error:
            outcome = error.outcome
            self._tell(f"{label}: {outcome}, {error}")
            if outcome == "applied":
                raise PromiseBroken(f"{label} was applied, and its answer was not kept") from error
            if outcome != "not_applied" and open_ is not None:
                open_()
            return REFUSED
        except HapteraError as error:
            raise PromiseBroken(f"{label} met an error that no fault explains: {error!r}") from error
        self._tell(f"{label}: {_answer(answer)}")
        return answer

    def _same(self, entries: list[Entry | None]) -> None:
        values = {None if entry is None else bytes(entry.value) for entry in entries}
        if len(values) != 1 or len(entries) != len(PAIR):
            raise PromiseBroken(f"the pair was seen half changed: {sorted(map(_shown, values))}")

    def _open_count(self) -> None:
        self._shared.count_open += 1

    def _own(self) -> tuple[str, Claim]:
        key = self._choices.choice(list(self.claims))
        return key, self.claims[key]

    def _value(self) -> bytes:
        self._written += 1
        return f"{self.name}: {self._written} ".encode().ljust(self._choices.choice(SIZES), b".")

    def _tell(self, text: str) -> None:
        self._transcript.add(self.name, text)


#: The answer of a call that had none.
REFUSED: Final = object()


def _answer(answer: Any) -> str:
    if isinstance(answer, list):
        return f"[{', '.join(map(_answer, answer))}]"
    if isinstance(answer, Entry):
        return f"{_shown(bytes(answer.value))}, version {answer.version}"
    return str(answer)


def _shown(value: bytes | None) -> str:
    return "nothing" if value is None else repr(value.decode().rstrip(". "))
