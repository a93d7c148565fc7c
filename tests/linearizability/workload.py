"""Clients that use every operation of one store, and record the answers."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any, Final

import msgspec

from haptera.client.calls.key_calls import KvMethods
from tests.linearizability.endings import Endings
from tests.linearizability.history import Told, row
from tests.linearizability.transactions import Transactions

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

    import haptera
    from haptera import Database, Entry
    from haptera.client.calls.methods import Method
    from tests.linearizability.history import History, Operation

    Ask = Callable[[], Awaitable[Told]]

#: Few, so that the clients meet.
KEYS: Final = ("a", "a/1", "a/2", "b", "n", "n/1")

PREFIXES: Final = ("", "a", "a/", "n", "z")
#: Bytes of a value that is too large for an answer that is kept (spec/protocol.md, section 7.1).
LARGE: Final = 5000

WEIGHTS: Final = {
    "get": 10,
    "set": 12,
    "increment": 16,
    "get_and_set": 4,
    "delete": 4,
    "rename": 3,
    "exists": 1,
    "get_many": 5,
    "set_many": 4,
    "delete_many": 2,
    "clear": 1,
    "count": 2,
    "scan": 4,
    "look_back": 3,
    "transact": 10,
    "set_mortal": 5,
    "expire": 2,
    "grant_lease": 2,
    "set_leased": 4,
    "set_fenced": 3,
}
#: Operations that are a set on the wire.
SETS: Final = frozenset({"get_and_set", "set_mortal", "set_leased", "set_fenced"})
#: Operations on keys that end, which are methods of `Endings`.
ENDINGS: Final = frozenset({"set_mortal", "expire", "grant_lease", "set_leased", "set_fenced"})
TIMEOUTS_S: Final = (20.0, 20.0, 300.0)
PAUSE_S: Final = 0.004
#: The wait behind one call in so many, because leases last for a second at least.
LONG_PAUSE_S: Final = 1.3
LONG_PAUSE_CHANCE: Final = 0.02
#: The longest wait behind a call that failed, because clients that are refused at once would be done at once.
AFTER_A_FAILURE_S: Final = 0.05


class Workload:
    """Chooses operations and runs them, all from one source of randomness."""

    def __init__(self, history: History, choices: random.Random) -> None:
        self.history = history
        self.running: dict[asyncio.Task[Operation], None] = {}
        self._choices = choices
        self._written = itertools.count(1)
        self._clients = itertools.count(1)
        self._seen: dict[str, int] = {}  # versions that conditions are made of
        self._endings = Endings(choices, self._key, self._value)
        self._transactions = Transactions(choices, self._key, self._written, self._seen)

    async def client(self, db: Database, count: int) -> None:
        """Run ``count`` operations one after the other. Some are cancelled, some have hardly any time."""
        number = next(self._clients)
        for _ in range(count):
            timeout = self._choices.choice(TIMEOUTS_S)
            if self._choices.random() < 0.1:
                timeout = self._choices.uniform(0.0001, 0.02)
            method = self._choices.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
            argument, ask = self._maker(method)(db, timeout)
            recorded = "set" if method in SETS else method
            task = asyncio.ensure_future(self.history.record(number, recorded, argument, ask))
            self.running[task] = None
            await asyncio.wait([task])
            del self.running[task]
            if self._choices.random() < LONG_PAUSE_CHANCE:
                await asyncio.sleep(LONG_PAUSE_S)
            if not task.cancelled() and task.result().outcome == "ok":
                await self.pause(PAUSE_S)
            else:
                await self.pause(AFTER_A_FAILURE_S)

    def _maker(self, method: str) -> Callable[[Database, float], tuple[dict[str, Any], Ask]]:
        """The method that makes operations of a kind: one of a part, or of this class."""
        part = self._endings if method in ENDINGS else self._transactions
        found: Callable[[Database, float], tuple[dict[str, Any], Ask]]
        found = getattr(self, f"_{method}") if hasattr(self, f"_{method}") else getattr(part, method)
        return found

    async def warm_up(self, db: Database, count: int) -> None:
        """Change a key of the client's own, one change after the other."""
        number = next(self._clients)
        for _ in range(count):
            argument: dict[str, Any] = {"key": "own", "value": self._value()}
            await self.history.record(number, "set", argument, self._set_of(db, argument, TIMEOUTS_S[0], {}))

    async def repeater(self, peers: Callable[[], Awaitable[haptera.Peer]], count: int) -> None:
        """Send changes under the same id two and three times, each time on another connection."""
        number = next(self._clients)
        for at in range(count):
            request_id = self._choices.randbytes(6) + b"\x80\x00\x80" + self._choices.randbytes(7)
            method: Method[Any]
            if self._choices.random() < 0.5:
                argument: dict[str, Any] = {"key": "n", "delta": 1}
                payload, method = msgspec.msgpack.encode(["n", 1]), KvMethods.increment
            else:
                argument = {"key": "b", "value": self._value()}
                payload, method = msgspec.msgpack.encode(["b", argument["value"]]), KvMethods.set
            await asyncio.gather(
                *(
                    self._attempt(peers, f"{number}.{at}", (method, payload, request_id), argument)
                    for _ in range(self._choices.randint(2, 3))
                )
            )

    async def _attempt(
        self,
        peers: Callable[[], Awaitable[haptera.Peer]],
        name: str,
        request: tuple[Method[Any], bytes, bytes],
        argument: dict[str, Any],
    ) -> None:
        method, payload, request_id = request

        async def ask() -> Told:
            async with asyncio.timeout(TIMEOUTS_S[0]):
                peer = await peers()
            answer = await peer.request(
                method.service, method.name, payload, timeout=TIMEOUTS_S[0], request_id=request_id
            )
            result = method.decode(answer.result())
            return Told(revision=answer.revision, number=getattr(result, "value", None))

        await self.pause(AFTER_A_FAILURE_S)
        try:
            await self.history.record(next(self._clients), method.name, argument, ask, request=name)
        except (OSError, TimeoutError):
            pass  # no connection: the operation was never sent, and stays open in the history

    async def pause(self, longest: float) -> None:
        await asyncio.sleep(self._choices.uniform(0.0, longest))

    def cancel_one(self) -> bool:
        """Cancel one of the operations that run."""
        if not self.running:
            return False
        return self._choices.choice(list(self.running)).cancel()

    async def observe(self, db: Database) -> int:
        """Read everything, when all is over; the newest revision that was told."""
        number = next(self._clients)
        for method in ("scan", "get_many", "count"):
            argument, ask = getattr(self, f"_{method}")(db, None, everything=True)
            operation = await self.history.record(number, method, argument, ask)
            assert operation.outcome == "ok", operation
        return max(operation.told.revision or 0 for operation in self.history.operations)

    # -- one key

    def _get(self, db: Database, timeout: float) -> tuple[dict[str, Any], Ask]:
        key = self._key()

        async def ask() -> Told:
            entry = await db.get(key, timeout=timeout)
            self._note(entry)
            # A missing key is an error on the wire, which carries no revision.
            return Told(rows=[row(key, entry)], revision=None if entry is None else db.revision)

        return {"key": key}, ask

    def _exists(self, db: Database, timeout: float) -> tuple[dict[str, Any], Ask]:
        key = self._key()

        async def ask() -> Told:
            return Told(number=int(await db.exists(key, timeout=timeout)), revision=db.revision)

        return {"key": key}, ask

    def _set(self, db: Database, timeout: float) -> tuple[dict[str, Any], Ask]:
        key, conditions = self._key(), self._conditions()
        argument = {"key": key, "value": self._value(), **self._condition(key, conditions)}
        return argument, self._set_of(db, argument, timeout, conditions)

    def _set_of(self, db: Database, argument: dict[str, Any], timeout: float, conditions: dict[str, Any]) -> Ask:
        async def ask() -> Told:
            version = await db.set(
                argument["key"],
                argument["value"],
                if_version=argument.get("if_version"),
                timeout=timeout,
                **conditions,
            )
            self._seen[argument["key"]] = version
            return Told(revision=version)

        return ask

    def _get_and_set(self, db: Database, timeout: float) -> tuple[dict[str, Any], Ask]:
        key, conditions = self._key(), self._conditions()
        argument = {"key": key, "value": self._value(), **self._condition(key, conditions)}

        async def ask() -> Told:
            before = await db.get_and_set(
                key, argument["value"], if_version=argument.get("if_version"), timeout=timeout, **conditions
            )
            return Told(rows=[row(key, before)], revision=db.revision)

        return argument, ask

    def _increment(self, db: Database, timeout: float) -> tuple[dict[str, Any], Ask]:
        key = self._choices.choice(("n", "n", "n/1", "a"))
        delta, initial = self._choices.choice((1, 1, -1, 10, 2**62)), self._choices.choice((0, 0, 100))

        async def ask() -> Told:
            number = await db.increment(key, delta, initial=initial, timeout=timeout)
            return Told(number=number, revision=db.revision)

        return {"key": key, "delta": delta, "initial": initial}, ask

    def _delete(self, db: Database, timeout: float) -> tuple[dict[str, Any], Ask]:
        key = self._key()
        argument = {"key": key, **self._condition(key, {})}

        async def ask() -> Told:
            deleted = await db.delete(key, if_version=argument.get("if_version"), timeout=timeout)
            return Told(number=int(deleted), revision=db.revision, loose=True)

        return argument, ask

    def _rename(self, db: Database, timeout: float) -> tuple[dict[str, Any], Ask]:
        key, new_key, if_absent = self._key(), self._key(), self._choices.random() < 0.5

        async def ask() -> Told:
            return Told(revision=await db.rename(key, new_key, if_absent=if_absent, timeout=timeout))

        return {"key": key, "new_key": new_key, **({"if": "absent"} if if_absent else {})}, ask

    # -- many keys

    def _get_many(self, db: Database, timeout: float | None, *, everything: bool = False) -> tuple[dict[str, Any], Ask]:
        keys = list(KEYS) if everything else self._keys()

        async def ask() -> Told:
            entries = await db.get_many(keys, timeout=timeout)
            return Told(rows=[row(key, entry) for key, entry in zip(keys, entries, strict=True)], revision=db.revision)

        return {"keys": keys}, ask

    def _set_many(self, db: Database, timeout: float) -> tuple[dict[str, Any], Ask]:
        items = {key: self._value() for key in self._keys()}

        async def ask() -> Told:
            return Told(revision=await db.set_many(items, timeout=timeout))

        return {"items": items}, ask

    def _delete_many(self, db: Database, timeout: float) -> tuple[dict[str, Any], Ask]:
        keys = self._keys()

        async def ask() -> Told:
            return Told(number=await db.delete_many(keys, timeout=timeout), revision=db.revision, loose=True)

        return {"keys": keys}, ask

    def _clear(self, db: Database, timeout: float) -> tuple[dict[str, Any], Ask]:
        prefix = self._choices.choice(PREFIXES)

        async def ask() -> Told:
            return Told(number=await db.clear(prefix=prefix, timeout=timeout), revision=db.revision, loose=True)

        return {"prefix": prefix}, ask

    def _count(self, db: Database, timeout: float | None, *, everything: bool = False) -> tuple[dict[str, Any], Ask]:
        prefix = "" if everything else self._choices.choice(PREFIXES)

        async def ask() -> Told:
            return Told(number=await db.count(prefix=prefix, timeout=timeout), revision=db.revision)

        return {"prefix": prefix}, ask

    def _scan(self, db: Database, timeout: float | None, *, everything: bool = False) -> tuple[dict[str, Any], Ask]:
        argument: dict[str, Any] = {"prefix": "", "limit": None, "reverse": False}
        keys_only = False
        if not everything:
            argument = {
                "prefix": self._choices.choice(PREFIXES),
                "limit": self._choices.choice((None, None, 0, 1, 2)),
                "reverse": self._choices.random() < 0.5,
            }
            keys_only = self._choices.random() < 0.2

        async def ask() -> Told:
            scan = db.scan(**argument, keys_only=keys_only, timeout=timeout)
            rows = [row(entry.key, entry) async for entry in scan]
            return Told(rows=rows, number=scan.count, revision=scan.revision, keys_only=keys_only)

        return argument, ask

    def _look_back(self, db: Database, timeout: float) -> tuple[dict[str, Any], Ask]:
        """A scan of the store as it was at a revision that is known."""
        told = [operation.told.revision for operation in self.history.operations[-20:]]
        known = [revision for revision in told if revision is not None]
        prefix, at = self._choices.choice(PREFIXES), self._choices.choice(known or [0])

        async def ask() -> Told:
            scan = db.scan(prefix=prefix, at_revision=at, timeout=timeout)
            rows = [row(entry.key, entry) async for entry in scan]
            return Told(rows=rows, number=scan.count, revision=scan.revision)

        return {"prefix": prefix, "at_revision": at}, ask

    # -- choices

    def _key(self) -> str:
        return self._choices.choice(KEYS)

    def _keys(self) -> list[str]:
        return self._choices.sample(KEYS, self._choices.choice((1, 1, 2, 2, 3, 3, len(KEYS))))

    def _value(self) -> bytes:
        """A value that nothing else writes; sometimes a number, sometimes a large one."""
        number = next(self._written)
        match self._choices.random():
            case chance if chance < 0.1:
                return b"%d" % (1000 * number)
            case chance if chance < 0.2:
                return (b"v%d " % number).ljust(LARGE, b"x")
            case _:
                return b"v%d" % number

    def _conditions(self) -> dict[str, Any]:
        chance = self._choices.random()
        if chance < 0.15:
            return {"if_absent": True}
        return {"if_present": True} if chance < 0.25 else {}

    def _condition(self, key: str, conditions: dict[str, Any]) -> dict[str, Any]:
        """The conditions as the checker reads them, and a version in a part of the calls."""
        argument: dict[str, Any] = {}
        if conditions:
            argument["if"] = "absent" if "if_absent" in conditions else "present"
        elif self._choices.random() < 0.25:
            argument["if_version"] = self._seen.get(key, 0) if self._choices.random() < 0.8 else 0
        return argument

    def _note(self, entry: Entry | None) -> None:
        if entry is not None:
            self._seen[entry.key] = entry.version
