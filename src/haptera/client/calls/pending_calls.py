"""Calls of a batch that wait to be sent together, and their results."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Coroutine, Generator
from contextlib import suppress
from types import coroutine as from_generator
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar, cast

from haptera.peer import Call

if TYPE_CHECKING:
    from types import TracebackType

T = TypeVar("T")

#: Calls that wait to be sent: each takes a kilobyte until it is answered, so these take 64 MiB beside their values.
PENDING_CALLS_MAX: Final = 65_536
_INTERRUPTED: Final = "the pipeline was interrupted before the call was answered"
#: Stands for the wait for one turn of the loop, which a coroutine asks for by None.
_TURN: Final = object()


class Pending(Generic[T]):
    """The result of one call of a pipeline, which is there when the call was sent and answered."""

    __slots__ = ("_coroutine", "_error", "_result")

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._coroutine: Coroutine[Any, Any, T] | None = coroutine
        self._error: Exception | None = None
        self._result: T | None = None

    @property
    def done(self) -> bool:
        """Whether the call was answered, or has failed."""
        return self._coroutine is None

    @property
    def error(self) -> Exception | None:
        """The error of a call that has failed, else None."""
        return self._error

    def result(self) -> T:
        """Return the result of the call.

        Raises:
            RuntimeError: The call was not sent yet: the end of the block sends it, or `Pipeline.send`.
            Exception: The error of the call, as the same call of a `Database` raises it.
        """
        if self._coroutine is not None:
            raise RuntimeError("the call was not sent yet: the end of the pipeline's block sends it, or its send()")
        if self._error is not None:
            raise self._error
        return cast("T", self._result)

    def __repr__(self) -> str:
        state = "waits" if self._coroutine is not None else "failed" if self._error is not None else "done"
        return f"<haptera.recipes.Pending {state}>"


async def _carry_out(call: Pending[Any]) -> None:
    """Make the call."""
    assert call._coroutine is not None
    await _settle(call, call._coroutine)


async def _settle(call: Pending[Any], coming: Awaitable[Any]) -> None:
    """Wait for the result of a call, and keep it."""
    try:
        call._result = await coming
    except Exception as error:
        call._error = error
    except BaseException:
        call._error = RuntimeError(_INTERRUPTED)
        raise
    finally:
        call._coroutine = None


def _step(call: Pending[Any]) -> Any:
    """Carry the coroutine of a call on to its next wait, and return the object that it waits for; None at its end."""
    coroutine = call._coroutine
    assert coroutine is not None
    try:
        return coroutine.send(None) or _TURN
    except StopIteration as end:
        call._result = end.value
    except Exception as error:
        call._error = error
    call._coroutine = None
    return None


@from_generator
def _rest(coroutine: Coroutine[Any, Any, T], waited_for: Any) -> Generator[Any, Any, T]:
    """The rest of a coroutine that waits for something already."""
    try:
        while True:
            try:
                yield None if waited_for is _TURN else waited_for
            except Exception as error:
                waited_for = coroutine.throw(error) or _TURN
            except asyncio.CancelledError as cancelled:
                waited_for = coroutine.throw(cancelled) or _TURN
            else:
                waited_for = coroutine.send(None) or _TURN
    except StopIteration as end:
        return cast("T", end.value)


async def _carry_out_together(calls: list[Pending[Any]], others: asyncio.TaskGroup) -> None:
    """Send calls and wait for their answers, in this task: a task for each would take half as long again.

    A call that waits for anything but its first answer, because it is sent again for instance, gets a task of
    ``others``.
    """
    sent: deque[tuple[Pending[Any], Call]] = deque()
    try:
        for call in calls:
            waited_for = _step(call)
            if type(waited_for) is Call:
                sent.append((call, waited_for))
            elif waited_for is not None:
                _go_on(call, waited_for, others)
        while sent:
            call, answer = sent[0]
            if not answer.done():
                await asyncio.wait((answer,))
            sent.popleft()
            waited_for = _step(call)
            if waited_for is not None:
                _go_on(call, waited_for, others)
    finally:
        for call, answer in sent:
            if not answer.cancel() and not answer.cancelled():
                answer.exception()  # it has come, and no one will look at it
            _interrupt(call)


def _interrupt(call: Pending[Any]) -> None:
    """Have a call end whose pipeline is cancelled before the answer."""
    coroutine, call._coroutine = call._coroutine, None
    assert coroutine is not None
    call._error = RuntimeError(_INTERRUPTED)
    with suppress(asyncio.CancelledError, Exception):
        coroutine.throw(asyncio.CancelledError())
    coroutine.close()


def _go_on(call: Pending[Any], waited_for: Any, tasks: asyncio.TaskGroup) -> None:
    assert call._coroutine is not None
    tasks.create_task(_settle(call, _rest(call._coroutine, waited_for)))


def _drop(call: Pending[Any]) -> None:
    """Give a call up that was not sent."""
    if call._coroutine is not None:
        call._coroutine.close()
        call._coroutine = None
        call._error = RuntimeError("the call was not sent: its pipeline was left before")


class PendingCalls:
    """The calls of a batch, in their order."""

    __slots__ = ("_check", "_ended", "_waiting")

    def __init__(self, *, check: bool) -> None:
        self._check = check
        self._ended = False
        self._waiting: list[Pending[Any]] = []

    def _add(self, coroutine: Coroutine[Any, Any, T]) -> Pending[T]:
        if self._ended or len(self._waiting) >= PENDING_CALLS_MAX:
            coroutine.close()
            if self._ended:
                raise ValueError("the pipeline has ended")
            raise ValueError(f"a pipeline takes {PENDING_CALLS_MAX:,} calls between two of its send()")
        pending = Pending(coroutine)
        self._waiting.append(pending)
        return pending

    def _sends_at_once(self) -> bool:
        """Whether calls leave in their first step, and wait for nothing but their answers then."""
        raise NotImplementedError

    async def send(self) -> None:
        """Send the calls that wait, all together, and wait for their answers.

        The end of the block does it. In the block it makes results known that further calls depend on.

        Raises:
            Exception: The error of the first call that has failed, once all are answered, unless the pipeline was made
                with ``check=False``. The results and errors of the others are there.
        """
        calls, self._waiting = self._waiting, []
        try:
            async with asyncio.TaskGroup() as group:
                if self._sends_at_once():
                    await _carry_out_together(calls, group)
                else:
                    for call in calls:
                        group.create_task(_carry_out(call))
        finally:
            for call in calls:
                _drop(call)  # one whose task was cancelled before its first step
        if self._check:
            for call in calls:
                if call.error is not None:
                    raise call.error

    def __len__(self) -> int:
        return len(self._waiting)

    async def __aenter__(self) -> Self:
        if self._ended:
            raise ValueError("the pipeline has ended")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                await self.send()
        finally:
            self._ended = True
            for call in self._waiting:
                _drop(call)
            self._waiting = []

    def __del__(self) -> None:
        for call in getattr(self, "_waiting", ()):
            _drop(call)
