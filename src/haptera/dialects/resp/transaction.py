"""MULTI, EXEC, DISCARD, WATCH and UNWATCH: the queued commands of a connection, and the keys that it watches.

A watched key is remembered with its version, and EXEC makes its changes on the condition that each has it still. A
version only grows, so a key that was changed, deleted or has expired has another one, by any user's change. A missing
key has no version. It is remembered with the revision of the store, and the event history tells whether it has come
since, also where it is gone again (`haptera.state.appearances`).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from haptera.dialects.resp.atomic_execution import PARTS_MAX, VIEWED_MAX, Refused, WatchedKeys, execute
from haptera.dialects.resp.bounds import ARGUMENT_OVERHEAD, REQUEST_SIZE_MAX
from haptera.dialects.resp.error_words import NOT_IN_A_TRANSACTION, words_of
from haptera.dialects.resp.reply_encoding import OK, QUEUED, array, error
from haptera.dialects.resp.steps import Command, Many, Slow, flags
from haptera.errors import Code, Failure
from haptera.node.commands import operations

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haptera.dialects.resp.resp_session import RespSession
    from haptera.dialects.resp.steps import Handler, Outcome, Step

#: Commands of one transaction: plain sets of so many keys are put together in some ten milliseconds.
QUEUED_MAX: Final = 32_768
#: Bytes of the arguments of a transaction, as those of one request.
QUEUED_SIZE_MAX: Final = REQUEST_SIZE_MAX
#: Keys that one connection watches: each is a compare of the transact.
WATCHED_MAX: Final = PARTS_MAX

_TOO_MANY_QUEUED: Final = error("ERR the transaction is too large: it is discarded")
_TOO_MANY_WATCHED: Final = error(f"ERR too many watched keys: {WATCHED_MAX} at most")
_ABORTED: Final = error("EXECABORT Transaction discarded because of previous errors.")

#: Commands that a transaction runs at once.
_AT_ONCE: Final = frozenset({"multi", "exec", "discard", "watch", "quit", "reset"})
#: Commands that are no part of a transaction: of a range of keys, which no transact has, of the connection's identity
#: or its messages, and those that wait.
_IMPOSSIBLE: Final = frozenset(
    {
        "auth",
        "client|caching",
        "client|reply",
        "client|tracking",
        "dbsize",
        "debug",
        "flushall",
        "flushdb",
        "hello",
        "keys",
        "psubscribe",
        "punsubscribe",
        "randomkey",
        "scan",
        "subscribe",
        "unsubscribe",
        "wait",
        "waitaof",
    }
)


class QueuedTransaction:
    """The transaction of one connection: ``queued`` are its commands, None outside of MULTI."""

    __slots__ = ("_session", "_size", "_spoilt", "queued", "watched")

    def __init__(self, session: RespSession) -> None:
        self.queued: list[tuple[Command, list[bytes]]] | None = None
        self.watched: WatchedKeys = WatchedKeys()
        self._session = session
        self._size = 0
        self._spoilt = False

    def gate(self, command: Command, arguments: list[bytes]) -> bytes | None:
        """Queue a command within MULTI, and return the reply; None for one that is run now."""
        queued = self.queued
        if queued is None or command.name in _AT_ONCE:
            return None
        if command.name in _IMPOSSIBLE or command.name.partition("|")[0] in _IMPOSSIBLE:
            self.spoil()
            return NOT_IN_A_TRANSACTION
        if self._spoilt:
            return QUEUED  # it is never run, so it is not kept
        self._hold(sum(map(len, arguments)) + ARGUMENT_OVERHEAD * len(arguments))
        if self._size > QUEUED_SIZE_MAX or len(queued) >= QUEUED_MAX:
            self.spoil()
            return _TOO_MANY_QUEUED
        queued.append((command, arguments))
        return QUEUED

    def spoil(self) -> None:
        """A command could not be queued: EXEC runs none of them."""
        if self.queued is not None:
            self._spoilt = True
            self.queued.clear()
            self._hold(-self._size)

    def discard(self) -> None:
        """Leave MULTI, and watch no key."""
        self.queued = None
        self.watched = WatchedKeys()
        self._spoilt = False
        self._hold(-self._size)

    def _hold(self, change: int) -> None:
        self._size += change
        self._session.keep(change)

    # -- the commands -----------------------------------------------------------------------------------------------

    def multi(self) -> bytes:
        """Begin to queue commands."""
        if self.queued is not None:
            return error("ERR MULTI calls can not be nested")
        self.queued = []
        return OK

    def exec(self) -> Step:
        """Run the queued commands."""
        queued, watched = self.queued, self.watched
        if queued is None:
            return error("ERR EXEC without MULTI")
        spoilt, size = self._spoilt, self._size
        self.discard()
        if spoilt:
            return _ABORTED
        self._session.keep(size)  # until they have run
        return Slow(lambda: self._run(queued, watched, size))

    async def _run(self, queued: list[tuple[Command, list[bytes]]], watched: WatchedKeys, size: int) -> bytes:
        try:
            return await self._run_all(queued, watched)
        finally:
            self._session.keep(-size)

    async def _run_all(self, queued: list[tuple[Command, list[bytes]]], watched: WatchedKeys) -> bytes:
        session = self._session
        steps: list[Step] = []
        while len(steps) < len(queued):
            asked = queued[len(steps) : len(steps) + VIEWED_MAX]
            steps += self._steps_of(asked)
            if len(steps) < len(queued):
                await asyncio.sleep(0)
        try:
            replies = await execute(session, steps, watched)
        except Refused as refused:
            because = words_of(refused.reason)
            return b"-EXECABORT Transaction discarded because of: " + because[1:]
        if replies is None:
            return session.null_array
        self._do_late(queued, replies)
        return array(replies)

    def _steps_of(self, queued: Sequence[tuple[Command, list[bytes]]]) -> list[Step]:
        """The steps of some commands; an empty reply in the place of each that is done late."""
        session = self._session
        session.in_transaction = True
        try:
            return [b"" if _is_late(command) else session.step_of(command, arguments) for command, arguments in queued]
        finally:
            session.in_transaction = False

    def _do_late(self, queued: Sequence[tuple[Command, list[bytes]]], replies: list[bytes]) -> None:
        """Do the commands that change what is kept of connections, and put their replies in."""
        for place, (command, arguments) in enumerate(queued):
            if _is_late(command):
                reply = self._session.step_of(command, arguments)
                assert isinstance(reply, bytes), "a command of connections asks nothing of the store"
                replies[place] = reply

    def watch(self, arguments: Sequence[bytes]) -> Step:
        """Remember the versions of keys. Watched ones keep theirs."""
        if self.queued is not None:
            return error("ERR WATCH inside MULTI is not allowed")
        keys = [
            key
            for key in dict.fromkeys(argument.decode() for argument in arguments)
            if key not in self.watched.versions
        ]
        if len(keys) + len(self.watched.versions) > WATCHED_MAX:
            return _TOO_MANY_WATCHED
        if not keys:
            return OK
        revision = self._session.caller.commands.revision  # of before the reads, so that nothing between is missed
        return Many([operations.Get(key) for key in keys], lambda outcomes, _: self._watched(keys, outcomes, revision))

    def _watched(self, keys: Sequence[str], outcomes: Sequence[Outcome], revision: int) -> bytes:
        versions: dict[str, int] = {}
        for key, outcome in zip(keys, outcomes, strict=True):
            if isinstance(outcome, Failure) and outcome.code != Code.KEY_NOT_FOUND:
                return words_of(outcome)
            versions[key] = 0 if isinstance(outcome, Failure) else outcome[1]
        self.watched.versions |= versions
        self.watched.missing |= {key: revision for key, version in versions.items() if not version}
        return OK


def _is_late(command: Command) -> bool:
    """Whether a command acts on connections, and not on the store. It is done when the changes are made, because a
    transaction that makes none must do nothing.
    """
    return command.name.startswith("client|")


def transaction_of(session: RespSession) -> QueuedTransaction:
    """The transaction of a connection."""
    found: QueuedTransaction | None = session.attributes.get("transaction")
    if found is not None:
        return found
    made = session.attributes["transaction"] = QueuedTransaction(session)
    session.gates += (made.gate,)
    session.on_fault += (made.spoil,)

    def leave() -> None:
        made.discard()
        del session.attributes["transaction"]
        session.gates = tuple(gate for gate in session.gates if gate != made.gate)
        session.on_fault = tuple(tell for tell in session.on_fault if tell != made.spoil)

    session.at_end.append(leave)
    return made


def _multi(session: RespSession, _: list[bytes]) -> Step:
    """MULTI"""
    return transaction_of(session).multi()


def _exec(session: RespSession, _: list[bytes]) -> Step:
    """EXEC"""
    return transaction_of(session).exec()


def _discard(session: RespSession, _: list[bytes]) -> Step:
    """DISCARD"""
    transaction = transaction_of(session)
    if transaction.queued is None:
        return error("ERR DISCARD without MULTI")
    transaction.discard()
    return OK


def _watch(session: RespSession, arguments: list[bytes]) -> Step:
    """WATCH key [key ...]"""
    return transaction_of(session).watch(arguments[1:])


def _unwatch(session: RespSession, _: list[bytes]) -> Step:
    """UNWATCH"""
    transaction_of(session).watched = WatchedKeys()
    return OK


def _row(name: str, arity: int, since: str, summary: str, handler: Handler) -> Command:
    at = 1 if name == "watch" else 0
    return Command(
        name=name,
        arity=arity,
        flags=flags("noscript loading stale" + (" skip_slowlog" if name == "exec" else " fast allow_busy")),
        group="transactions",
        since=since,
        summary=summary,
        handler=handler,
        first_key=at,
        last_key=-at,
        key_step=at,
        alone=True,  # the replies to WATCH before it bring the versions
    )


ROWS: Final = (
    _row("multi", 1, "1.2.0", "Begin a transaction.", _multi),
    _row("exec", 1, "1.2.0", "Run the commands of a transaction.", _exec),
    _row("discard", 1, "2.0.0", "Leave a transaction, and run none of its commands.", _discard),
    _row("watch", -2, "2.2.0", "Have a transaction depend on keys that do not change.", _watch),
    _row("unwatch", 1, "2.2.0", "Forget the keys that a transaction depends on.", _unwatch),
)
