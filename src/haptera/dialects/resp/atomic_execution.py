"""The commands of a transaction as one change of the store.

First the operations of the commands are sent as they are, in one transact, which costs no read. Where one of them
fails, Redis would go on with the others, and the store makes none. So then the commands run on a view of the store
(`haptera.dialects.resp.store_view`), and the changes that succeed in it are sent with the versions of the entries by
which they were judged. If one of those has changed meanwhile, nothing is made, and all is judged again. Each attempt is
atomic, so the replies are those of the commands in a row, with nothing between them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from haptera.dialects.resp.bounds import REPLY_SIZE_MAX
from haptera.dialects.resp.error_words import NOT_IN_A_TRANSACTION, words_of
from haptera.dialects.resp.steps import Judged, Many, Slow
from haptera.dialects.resp.store_view import StoreView
from haptera.errors import Code, Failure, failure
from haptera.node.commands import Envelope, limits, operations

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from haptera.dialects.resp.resp_session import RespSession
    from haptera.dialects.resp.steps import Outcome, Step
    from haptera.dialects.resp.store_view import Entry
    from haptera.node.commands import Result

#: Attempts on entries that plain changes of others have changed meanwhile. Judged changes wait in a line.
ATTEMPTS_MAX: Final = 64
#: Commands, and keys in them, that are looked at in one turn of the loop: some milliseconds.
VIEWED_MAX: Final = 1024
#: Bytes of the values that the commands make together: a short one, such as SETRANGE, may make the largest value.
MADE_SIZE_MAX: Final = REPLY_SIZE_MAX
#: Operations and compares that one transact takes.
PARTS_MAX: Final = limits.TRANSACT_PARTS_MAX

#: The failures of an operation that Redis answers with a reply of their own, and goes on.
_UNMET: Final = frozenset(
    map(int, (Code.KEY_NOT_FOUND, Code.VERSION_MISMATCH, Code.KEY_EXISTS, Code.NOT_AN_INTEGER, Code.INTEGER_OVERFLOW))
)
_READS: Final = (operations.Get, operations.Exists, operations.TimeToLive, operations.GetMany)


class Refused(Exception):
    """None of the commands is run: ``reason`` says why."""

    def __init__(self, reason: Failure) -> None:
        super().__init__(reason.name)
        self.reason = reason


class WatchedKeys:
    """The ``versions`` of watched keys, 0 for a missing one, and for each that is ``missing`` a revision without it."""

    __slots__ = ("missing", "versions")

    def __init__(self) -> None:
        self.versions: dict[str, int] = {}
        self.missing: dict[str, int] = {}


async def execute(session: RespSession, steps: Sequence[Step], watched: WatchedKeys) -> list[bytes] | None:
    """Run commands in a row with nothing between them, if the ``watched`` keys are as they were.

    Returns the replies, or None where a watched key has changed. Raises Refused where nothing was changed, or where it
    is not known.
    """
    execution = _Execution(session, steps, watched)
    return await execution.run()


class _Execution:
    def __init__(self, session: RespSession, steps: Sequence[Step], watched: WatchedKeys) -> None:
        self._session = session
        self._caller = session.caller
        self._steps = steps
        self._watched = watched.versions
        self._appearances = self._caller.commands.appearances(watched.missing) if watched.missing else None

    async def run(self) -> list[bytes] | None:
        if await self._has_come():
            return None
        parts = _plain_parts(self._steps)
        if parts is not None and (replies := await self._as_they_are(parts)) is not None:
            return replies
        if sum(map(_weight, self._steps)) > VIEWED_MAX:
            raise Refused(_too_large())
        if await self._has_come():
            return None
        view, replies = self._judged()
        if not view.made:
            return None if self._is_conflict(view) else replies
        async with self._session.state.lines.turn(view.judged) as waited:
            for attempt in range(ATTEMPTS_MAX):
                if waited or attempt:
                    if await self._has_come():
                        return None
                    view, replies = self._judged()
                if self._is_conflict(view):
                    return None
                if not view.made or await self._made({**view.judged, **self._watched}, _changes(view)) is not None:
                    return replies
        raise Refused(failure(Code.TOO_MANY_REQUESTS, {"attempts_max": ATTEMPTS_MAX}, outcome="not_applied"))

    async def _has_come(self) -> bool:
        """Whether a key that was missing has come since, also where it is gone again. The answer is that of this turn
        of the loop.
        """
        if self._appearances is None:
            return False
        found: bool | None = self._appearances.advance()
        while found is None:
            await asyncio.sleep(0)
            found = self._appearances.advance()
        if found:
            self._look([*self._watched])  # raises Refused where the user may not read them any more
        return found

    # -- as they are ------------------------------------------------------------------------------------------------

    async def _as_they_are(self, parts: list[list[operations.Operation]]) -> list[bytes] | None:
        """The replies where each operation succeeds; None where that is to be judged."""
        flat = [each for part in parts for op in part for each in _singles(op)]
        if all(isinstance(op, _READS) for op in flat) or len(self._watched) > PARTS_MAX:
            return None
        if len(flat) <= PARTS_MAX:
            results: Sequence[Any] | None = await self._made(self._watched, flat)
        elif self._watched or (together := _one_set_many(flat)) is None:
            return None
        else:
            results = await self._set_together(together, len(flat))
        if results is None:
            return None
        replies, at = [], 0
        for number, (step, part) in enumerate(zip(self._steps, parts, strict=True), 1):
            if number % VIEWED_MAX == 0:
                await asyncio.sleep(0)
            outcomes: list[Outcome] = []
            for op in part:
                count = len(_singles(op))
                outcomes.append(_whole(op, results[at : at + count]))
                at += count
            replies.append(_shaped(step, outcomes, self._session))
        return replies

    async def _set_together(self, op: operations.SetMany, count: int) -> list[Any]:
        envelope = await self._caller.check(op)
        if isinstance(envelope, Failure):
            raise Refused(envelope)
        [result] = await self._session.submitted([envelope])
        if not isinstance(result, tuple):
            raise Refused(_failure_of(result))
        return [(result[0], None)] * count

    # -- on a view --------------------------------------------------------------------------------------------------

    def _judged(self) -> tuple[StoreView, list[bytes]]:
        """A view on which the commands have run, and their replies. Raises Refused where these are too large together,
        because each of a thousand short commands may read the largest value, or where the values that they make are.
        """
        view = StoreView(self._look, self._caller.facts.read_time_ms())
        replies: list[bytes] = []
        size = made_size = 0
        for step in self._steps:
            before = len(view.made)
            replies.append(self._reply(step, view))
            made_size += sum(len(op.value) for op in view.made[before:] if isinstance(op, operations.Set))
            if made_size > MADE_SIZE_MAX:
                raise Refused(failure(Code.MESSAGE_TOO_LARGE, {"limit": MADE_SIZE_MAX}, outcome="not_applied"))
            size += len(replies[-1])
            if size > REPLY_SIZE_MAX:
                raise Refused(_reply_too_large())
        if not self._session.hold(size + made_size):
            raise Refused(_reply_too_large())
        return view, replies

    def _is_conflict(self, view: StoreView) -> bool:
        """Whether a watched key has another version."""
        if any(self._watched.get(key, version) != version for key, version in view.judged.items()):
            return True
        if not self._watched:
            return False
        for found, version in zip(self._look([*self._watched]), self._watched.values(), strict=True):
            if version != (0 if found is None else found[1]):
                return True
        return False

    def _look(self, keys: Sequence[str]) -> list[Entry | None]:
        found: list[Result] = []
        self._caller.submit([Envelope(operations.Get(key)) for key in keys], found.extend)
        assert len(found) == len(keys), "reads are answered at once"
        return [_found(result) for result in found]

    def _reply(self, step: Step, view: StoreView) -> bytes:
        """Run one command on the view."""

        def ask(op: operations.Operation) -> Outcome:
            result = view.run(op)
            assert isinstance(result, tuple | Failure)
            return result

        try:
            if isinstance(step, bytes):
                return step
            if isinstance(step, Slow):
                return NOT_IN_A_TRANSACTION
            if isinstance(step, Judged):
                return _verdict(step, ask)
            ops = step.operations if isinstance(step, Many) else step[:1]
            return _shaped(step, [ask(op) for op in ops], self._session)
        except LookupError:
            return NOT_IN_A_TRANSACTION

    # -- the store --------------------------------------------------------------------------------------------------

    async def _made(self, versions: Mapping[str, int], ops: list[operations.OfOneKey]) -> tuple[Any, ...] | None:
        """The results of operations that were made while the keys had these versions; None if they were not made."""
        if len(versions) > PARTS_MAX or len(ops) > PARTS_MAX:
            raise Refused(_too_large())
        compares = [operations.Compare(key, "version", "=", version) for key, version in versions.items()]
        [result] = await self._session.ask(operations.Transact(compares, ops))
        if isinstance(result, tuple):
            succeeded, _, results = result
            given: tuple[Any, ...] = results
            return given if succeeded else None
        reason = _failure_of(result)
        if reason.code in _UNMET:
            return None
        raise Refused(reason)


def _verdict(step: Judged, ask: Callable[[operations.Operation], Outcome]) -> bytes:
    """The reply of a change that is judged by the entry of its key, as `judged_changes` has it."""
    found = ask(operations.Get(step.key))
    if isinstance(found, Failure) and found.code != Code.KEY_NOT_FOUND:
        return words_of(found)
    verdict = step.judge(None if isinstance(found, Failure) else found)
    if isinstance(verdict, bytes):
        return verdict
    change, reply = verdict
    made = ask(change)
    return words_of(made) if isinstance(made, Failure) else reply


def _plain_parts(steps: Sequence[Step]) -> list[list[operations.Operation]] | None:
    """The operations of each command; None where one is judged by what it reads, or can be no part of a transact."""
    parts: list[list[operations.Operation]] = []
    for step in steps:
        if isinstance(step, bytes):
            parts.append([])
        elif isinstance(step, Slow | Judged):
            return None
        else:
            parts.append(list(step.operations) if isinstance(step, Many) else [step[0]])
    possible = all(op.of_one_key or isinstance(op, _OF_MANY_KEYS) for part in parts for op in part)
    return parts if possible else None


_OF_MANY_KEYS: Final = (operations.GetMany, operations.SetMany, operations.DeleteMany)


def _weight(step: Step) -> int:
    """How many commands and keys there are to look at."""
    if isinstance(step, Many):
        return sum(map(_keys_in, step.operations))
    return _keys_in(step[0]) if isinstance(step, tuple) else 1


def _keys_in(op: operations.Operation) -> int:
    match op:
        case operations.GetMany() | operations.DeleteMany():
            return len(op.keys)
        case operations.SetMany():
            return len(op.items)
        case operations.Transact():
            return len(op.compares) + max(len(op.then), len(op.otherwise))
        case _:
            return 1


def _singles(op: operations.Operation) -> list[operations.OfOneKey]:
    """An operation as operations of one key each."""
    if isinstance(op, operations.GetMany):
        return [operations.Get(key) for key in op.keys]
    if isinstance(op, operations.SetMany):
        return [operations.Set(key, value, ttl_ms=op.ttl_ms) for key, value in dict(op.items).items()]
    if isinstance(op, operations.DeleteMany):
        return [operations.Delete(key) for key in dict.fromkeys(op.keys)]
    assert isinstance(op, operations.Read | operations.Write)
    return [op]


def _whole(op: operations.Operation, results: Sequence[Any]) -> Outcome:
    """The result of an operation from those of its `_singles`."""
    if isinstance(op, operations.GetMany):
        return (list(results),)
    if isinstance(op, operations.SetMany):
        return (results[-1][0],)
    if isinstance(op, operations.DeleteMany):
        versions = [version for deleted, version, _ in results if deleted]
        return (len(versions), versions[-1] if versions else None)
    result: tuple[Any, ...] | None = results[0]
    return failure(Code.KEY_NOT_FOUND, outcome="not_applied") if result is None else result


def _one_set_many(ops: Sequence[operations.Operation]) -> operations.SetMany | None:
    """Plain sets of one time to live as one operation, which may be of many more keys than a transact."""
    items: list[tuple[str, bytes]] = []
    ttls = set()
    for op in ops:
        if not isinstance(op, operations.Set) or op != operations.Set(op.key, op.value, ttl_ms=op.ttl_ms):
            return None
        items.append((op.key, op.value))
        ttls.add(op.ttl_ms)
    return operations.SetMany(items, ttl_ms=ttls.pop()) if len(ttls) == 1 else None


def _shaped(step: Step, outcomes: Sequence[Outcome], session: RespSession) -> bytes:
    if isinstance(step, bytes):
        return step
    assert not isinstance(step, Slow | Judged)
    return step.shape(outcomes, session) if isinstance(step, Many) else step[1](outcomes[0], session)


def _changes(view: StoreView) -> list[operations.OfOneKey]:
    """The changes that a view has made, each key's together where they would be too many."""
    if len(view.made) <= PARTS_MAX or view.renamed:
        return view.made
    return [
        operations.Delete(key)
        if change.value is None
        else operations.Set(key, change.value, ttl_ms=change.ttl_ms, keep_ttl=change.keep_ttl)
        for key, change in view.net.items()
    ]


def _found(result: Result) -> Entry | None:
    """An entry as a view takes it. A refusal, also for a permission that is lacking, is one of all commands."""
    if isinstance(result, tuple):
        value, version, expires_at_ms = result
        return (value, version, expires_at_ms)
    reason = _failure_of(result)
    if reason.code == Code.KEY_NOT_FOUND:
        return None
    raise Refused(reason)


def _failure_of(result: Result) -> Failure:
    assert isinstance(result, Failure), "a command without an id is not replayed"
    return result


def _reply_too_large() -> Failure:
    return failure(Code.MESSAGE_TOO_LARGE, {"limit": REPLY_SIZE_MAX}, outcome="not_applied")


def _too_large() -> Failure:
    return failure(Code.TRANSACTION_TOO_LARGE, {"limit": PARTS_MAX}, outcome="not_applied")
