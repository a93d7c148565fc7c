"""Work of the calling thread for the loop."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from haptera.sync.desk import Desk
from haptera.sync.loop_thread import LoopThread

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    made = LoopThread()
    yield made
    made.end()


def test_work_is_done_in_the_thread_that_waits(loop: LoopThread) -> None:
    desk = Desk()

    async def ask() -> list[int]:
        return [await desk.ask(threading.get_ident) for _ in range(3)]

    assert loop.run(ask, desk=desk) == [threading.get_ident()] * 3


def test_an_error_of_the_work_reaches_the_coroutine_that_has_asked(loop: LoopThread) -> None:
    desk = Desk()

    def fail() -> None:
        raise LookupError("there")

    async def ask() -> str:
        with pytest.raises(LookupError, match="there"):
            await desk.ask(fail)
        return "went on"

    assert loop.run(ask, desk=desk) == "went on"


def test_items_are_pulled_one_by_one_as_they_are_taken(loop: LoopThread) -> None:
    desk, made = Desk(), []

    def source() -> Iterator[int]:
        for number in range(5):
            made.append((number, threading.get_ident()))
            yield number

    async def take(count: int) -> list[int]:
        items = desk.pulled(source())
        taken = [await anext(items) for _ in range(count)]
        await items.aclose()
        return taken

    assert loop.run(lambda: take(3), desk=desk) == [0, 1, 2]
    assert made == [(number, threading.get_ident()) for number in range(3)]


def test_the_error_of_a_source_of_items_is_the_error_of_the_iteration(loop: LoopThread) -> None:
    desk = Desk()

    def source() -> Iterator[int]:
        yield 1
        raise LookupError("dry")

    async def take() -> list[int]:
        return [item async for item in desk.pulled(source())]

    with pytest.raises(LookupError, match="dry"):
        loop.run(take, desk=desk)


def test_work_that_makes_calls_of_its_own_is_done(loop: LoopThread) -> None:
    desk = Desk()

    async def inner() -> str:
        return "inner"

    async def ask() -> str:
        return await desk.ask(lambda: loop.run(inner))

    assert loop.run(ask, desk=desk) == "inner"


def test_work_that_is_asked_for_between_two_calls_is_done_in_the_next(loop: LoopThread) -> None:
    desk, asked = Desk(), threading.Event()
    done: list[str] = []

    async def ask() -> None:
        asked.set()
        done.append(await desk.ask(lambda: "work"))

    async def begin() -> None:
        loop.post(ask())

    async def wait() -> None:
        while not done:
            await asyncio.sleep(0)

    loop.run(begin)
    assert asked.wait(10)
    assert done == []
    loop.run(wait, desk=desk)
    assert done == ["work"]
