"""Names that are looked up: each once, in threads that nothing else waits for.

Trap: one dead name uses up the threads that resolve the others.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
import uvloop

from haptera import ConnectionLost, dial
from haptera.transport import lookups
from haptera.transport.limits import LOOKUPS_MAX
from haptera.transport.lookups import look_up, under_way
from tests.unit.peer.hosts import Echo, eventually, served


class Resolver:
    """Answers for names, and for those that begin with ``dead`` only once it is told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer_all = threading.Event()
        self._resolve = socket.getaddrinfo

    def __call__(self, host: Any, *rest: Any, **options: Any) -> Any:
        self.asked.append(host)
        if host.startswith("dead"):
            self.answer_all.wait()
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return self._resolve(host, *rest, **options)


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    resolver = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    yield resolver
    resolver.answer_all.set()


def run(loops: Any, main: Coroutine[Any, Any, None]) -> None:
    """Run ``main`` and see that no error of a lookup is reported as one that nobody has heard of."""
    unheard: list[Any] = []

    async def watched() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
        await main
        gc.collect()  # such an error is reported when its future goes

    with asyncio.Runner(loop_factory=loops) as runner:
        runner.run(watched())
    assert unheard == []


async def fails(host: str, timeout: float = 0.01) -> None:
    with pytest.raises(ConnectionLost, match=host):
        await dial(f"haptera://{host}:1", timeout=timeout)


both_loops = pytest.mark.parametrize(
    "loops", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)


@both_loops
def test_a_name_that_is_not_resolved_takes_one_thread_however_often_it_is_dialled(
    loops: Any, resolver: Resolver
) -> None:
    async def main() -> None:
        async with served("haptera://127.0.0.1:0", Echo()) as server:
            await asyncio.gather(*(fails("dead.invalid") for _ in range(40)))
            async with dial(server.url.replace("127.0.0.1", "localhost")) as peer:
                assert await peer.call("echo", "one", b"x") == b"x"
            assert resolver.asked.count("dead.invalid") == 1
            resolver.answer_all.set()
            await eventually(lambda: not under_way())

    run(loops, main())


@both_loops
def test_names_that_are_not_resolved_keep_neither_other_names_nor_other_work_waiting(
    loops: Any, resolver: Resolver
) -> None:
    async def main() -> None:
        # More than an executor has threads, which is 36 at most.
        await asyncio.gather(*(fails(f"dead{number}.invalid") for number in range(40)))
        assert under_way() == 40
        async with asyncio.timeout(10):
            assert await look_up("127.0.0.1", 1)
            await asyncio.to_thread(gc.isenabled)

    run(loops, main())  # and the end of the loop waits for no resolver
    assert not resolver.answer_all.is_set()


def test_no_more_names_are_looked_up_at_once_than_may_be_and_the_others_wait(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookups, "LOOKUPS_MAX", 2)

    async def main() -> None:
        waiting = asyncio.ensure_future(look_up("127.0.0.1", 1))
        await asyncio.gather(*(fails(f"dead{number}.invalid") for number in range(5)))
        assert await waiting
        assert under_way() <= 2
        late = [asyncio.ensure_future(look_up("127.0.0.1", port)) for port in range(1, 9)]
        await asyncio.sleep(0.01)
        assert not any(task.done() for task in late), "both threads wait for the resolver"
        resolver.answer_all.set()
        assert all(await asyncio.gather(*late))
        await eventually(lambda: not under_way())

    assert LOOKUPS_MAX > 2
    asyncio.run(main())


def test_a_lookup_that_outlives_its_loop_is_forgotten_at_its_end(resolver: Resolver) -> None:
    async def main() -> dict[Any, Any]:
        await fails("dead.invalid")
        return lookups._lookups[asyncio.get_running_loop()]

    left = asyncio.run(main())
    assert list(left) == [("dead.invalid", 1)]
    (thread,) = [each for each in threading.enumerate() if each.name == "haptera-lookup"]
    resolver.answer_all.set()
    thread.join()
    assert left == {}


def test_a_process_without_threads_left_says_so(resolver: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(ConnectionLost, match="Resource temporarily unavailable"):
        asyncio.run(dialled("haptera://localhost:1"))


async def dialled(url: str) -> None:
    await dial(url)
