"""The way of a thread's call to the loop and back: batches, interruptions, forks, and the end of the interpreter."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import gc
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

import haptera
from haptera.errors import WrongLoop
from haptera.sync import facade
from haptera.sync.desk import Desk
from haptera.sync.loop_thread import LoopThread
from haptera.sync.open_objects import OpenObject
from tests.support.forked import in_child

if TYPE_CHECKING:
    from collections.abc import Iterator

CALLERS = 16
SAID: contextvars.ContextVar[str] = contextvars.ContextVar("said", default="nothing")


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    made = LoopThread()
    yield made
    made.end()


async def give(value: object) -> object:
    return value


def interrupt() -> None:
    raise KeyboardInterrupt


def test_a_call_gives_the_result_of_its_coroutine_or_raises_its_error(loop: LoopThread) -> None:
    async def fail() -> None:
        raise LookupError("no such thing")

    assert loop.run(lambda: give(7)) == 7
    with pytest.raises(LookupError, match="no such thing"):
        loop.run(fail)
    assert loop.run(lambda: give("afterwards")) == "afterwards"
    assert loop.call(threading.get_ident) != threading.get_ident()


def test_the_calls_of_many_threads_wake_the_loop_once(loop: LoopThread, monkeypatch: pytest.MonkeyPatch) -> None:
    held, going_on = threading.Event(), threading.Event()
    waiting = threading.Barrier(CALLERS + 1)

    def hold() -> None:
        held.set()
        going_on.wait()

    def call(number: int) -> object:
        waiting.wait()
        return loop.run(lambda: give(number))

    woken: list[None] = []
    wake = loop.loop.wake  # type: ignore[attr-defined]

    def wake_and_count() -> None:
        woken.append(None)
        wake()

    with ThreadPoolExecutor(CALLERS + 1) as threads:
        holding = threads.submit(loop.call, hold)
        held.wait()
        monkeypatch.setattr(loop.loop, "wake", wake_and_count)
        calls = [threads.submit(call, number) for number in range(CALLERS)]
        waiting.wait()
        while len(loop._calls) < CALLERS:
            threading.Event().wait(0.001)
        going_on.set()
        assert [each.result() for each in calls] == list(range(CALLERS))
        holding.result()
    assert len(woken) == 1


def test_a_call_in_the_thread_of_the_loop_is_refused_before_it_waits_for_itself(loop: LoopThread) -> None:
    with pytest.raises(WrongLoop, match="another thread"):
        loop.call(lambda: loop.run(lambda: give(1)))


def test_a_call_has_the_context_variables_of_its_thread(loop: LoopThread) -> None:
    async def said() -> str:
        return SAID.get()

    SAID.set("this")
    assert loop.run(said) == "this"
    assert contextvars.Context().run(lambda: loop.run(said)) == "nothing"


def test_a_call_that_is_interrupted_is_cancelled_and_the_next_one_is_not(loop: LoopThread) -> None:
    desk, cancelled = Desk(), threading.Event()

    async def wait_long() -> None:
        asking = asyncio.ensure_future(desk.ask(interrupt))
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.set()
            asking.cancel()
            raise

    with pytest.raises(KeyboardInterrupt):
        loop.run(wait_long, desk=desk)
    assert cancelled.wait(10)
    assert loop.run(lambda: give(1)) == 1


def test_a_result_that_an_interrupted_thread_did_not_take_is_undone(loop: LoopThread) -> None:
    desk, undone = Desk(), threading.Event()
    closed: list[str] = []

    async def open_all_the_same() -> str:
        try:
            await desk.ask(interrupt)
        except asyncio.CancelledError:
            pass
        return "opened"

    async def close(opened: str) -> None:
        closed.append(opened)
        undone.set()

    with pytest.raises(KeyboardInterrupt):
        loop.run(open_all_the_same, desk=desk, undo=close)
    assert undone.wait(10)
    assert closed == ["opened"]


def test_a_thread_that_is_interrupted_in_the_middle_of_handing_over_leaves_the_loop_awake(
    loop: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap: it has said that it wakes the loop, and has not; all later calls would rely on it."""
    loop.run(lambda: give(0))
    monkeypatch.setattr(loop.loop, "wake", interrupt)
    with pytest.raises(KeyboardInterrupt):
        loop.run(lambda: give(1))
    monkeypatch.undo()
    assert loop.run(lambda: give(2)) == 2


def test_a_coroutine_that_others_cancel_raises_an_exception_and_no_cancellation(loop: LoopThread) -> None:
    async def cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(concurrent.futures.CancelledError) as caught:
        loop.run(cancelled)
    assert isinstance(caught.value, Exception)


def test_an_error_of_a_call_is_no_garbage_that_waits_for_the_collector(loop: LoopThread) -> None:
    async def fail() -> None:
        raise LookupError

    loop.run(lambda: give(0))
    gc.collect()
    gc.disable()
    try:
        before = len(gc.get_objects())
        for _ in range(200):
            with pytest.raises(LookupError):
                loop.run(fail)
        assert len(gc.get_objects()) - before < 200 * 4
    finally:
        gc.enable()


def test_a_forked_child_has_a_loop_of_its_own(loop: LoopThread) -> None:
    thread = loop.call(threading.get_ident)
    assert in_child(lambda: (loop.run(lambda: give("child")), threading.active_count())) == "('child', 2)"
    assert loop.run(lambda: give("parent")) == "parent"
    assert loop.call(threading.get_ident) == thread


def test_a_child_that_is_forked_while_another_thread_begins_the_loop_begins_its_own() -> None:
    """Trap: a lock that a forked child keeps."""
    loop = LoopThread()
    with loop._beginning:
        assert in_child(lambda: loop.run(lambda: give(1))) == "1"
    loop.end()


def test_the_end_warns_of_what_is_open_closes_it_and_ends_the_thread() -> None:
    loop = LoopThread()
    closed: list[str] = []

    async def close() -> None:
        closed.append("closed")

    async def fail() -> None:
        raise OSError("it is gone")

    opened = loop.open.add(OpenObject(lambda: "thing", lambda: True, close))
    broken = loop.open.add(OpenObject(lambda: "broken", lambda: True, fail))
    done = loop.open.add(OpenObject(lambda: "done", lambda: True, close))
    done.closed = True
    loop.run(lambda: give(1))
    thread = next(each for each in threading.enumerate() if each.ident == loop._ident)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop.end()
    assert sorted(str(each.message) for each in caught) == [
        "unclosed broken: use it with 'with', or call its aclose()",
        "unclosed thing: use it with 'with', or call its aclose()",
    ]
    assert opened.unclosed
    assert broken.unclosed
    assert closed == ["closed"]
    assert not thread.is_alive()
    with pytest.raises(RuntimeError, match="ends"):
        loop.run(lambda: give(1))


def test_the_end_closes_what_is_open_where_warnings_are_errors() -> None:
    loop = LoopThread()
    closed: list[str] = []

    async def close() -> None:
        closed.append("closed")

    opened = loop.open.add(OpenObject(lambda: "thing", lambda: True, close))
    loop.run(lambda: give(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ResourceWarning, match="unclosed thing"):
            loop.end()
    assert opened.unclosed
    assert closed == ["closed"]


def test_an_object_that_outlives_the_names_of_the_modules_ends_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of a server's program do at the end of the interpreter. An error there would only be printed."""
    printed: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", printed.append)
    for used in (True, False):
        loop = LoopThread()
        db = facade.Store(haptera.connect("haptera://127.0.0.1:1"), thread=loop)
        if used:
            loop.run(lambda: give(1))
        loop.end()
        with monkeypatch.context() as patch:
            patch.setattr(facade, "_drop", None)
            del db
    assert printed == []


def test_an_object_that_is_dropped_is_forgotten() -> None:
    loop = LoopThread()
    loop.open.add(OpenObject(lambda: "thing", lambda: True, lambda: give(1)))
    gc.collect()
    assert loop.open.unclosed() == []


def test_what_is_posted_runs_and_its_error_is_dropped(loop: LoopThread) -> None:
    ran = threading.Event()

    async def run() -> None:
        ran.set()
        raise LookupError

    coroutine = run()
    loop.post(coroutine)  # there is no loop yet: nothing to close on it
    assert not ran.is_set()
    loop.run(lambda: give(1))
    loop.post(run())
    assert ran.wait(10)
    assert loop.run(lambda: give(2)) == 2


def test_each_task_of_the_loop_has_ended_when_the_interpreter_ends() -> None:
    """A copy that a program has left open is kept by tasks in a group, which end over several turns of the loop."""
    home, kept, ended = LoopThread(), [], []

    async def keep() -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(asyncio.sleep(3600))
                await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def begin() -> None:
        kept.append(asyncio.ensure_future(keep()))
        await asyncio.sleep(0)

    home.run(begin)
    home.end()
    assert ended == [True]
    assert kept[0].cancelled()
