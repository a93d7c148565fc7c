"""Virtual time: it jumps, it is told from a hang, it repeats, and it lets nothing real in."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import socket
import threading
import time
import uuid
from typing import TYPE_CHECKING

import pytest

import haptera
from haptera.testing import NotSimulated, Stalled, VirtualClockLoop, run, virtual_clock
from tests.unit.testing.services import Echo

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from pathlib import Path


class Noting(asyncio.BufferedProtocol):
    """Stands before a protocol and notes what it is given."""

    def __init__(self, protocol: asyncio.BufferedProtocol, note: Callable[[bytes], None]) -> None:
        self._protocol = protocol
        self._note = note
        self.pause_writing = protocol.pause_writing  # type: ignore[method-assign]
        self.resume_writing = protocol.resume_writing  # type: ignore[method-assign]
        self.eof_received = protocol.eof_received  # type: ignore[method-assign]
        self.connection_lost = protocol.connection_lost  # type: ignore[method-assign]

    def get_buffer(self, sizehint: int) -> memoryview:
        self._place = memoryview(self._protocol.get_buffer(sizehint))
        return self._place

    def buffer_updated(self, nbytes: int) -> None:
        self._note(self._place[:nbytes].tobytes())
        self._protocol.buffer_updated(nbytes)


def now() -> float:
    return asyncio.get_running_loop().time()


def test_time_begins_at_zero_and_jumps_to_the_next_timer() -> None:
    seen: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        seen.append((name, now()))

    async def main() -> float:
        assert now() == 0.0
        await asyncio.gather(sleeper("day", 86_400.0), sleeper("second", 1.0), sleeper("moment", 1e-6))
        return now()

    assert run(main()) == 86_400.0
    assert seen == [("moment", 1e-6), ("second", 1.0), ("day", 86_400.0)]


def test_the_timers_that_are_set_are_known_in_order_until_they_are_due_or_cancelled() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualClockLoop)
        assert loop.timers == []
        late, soon = loop.call_later(5.0, bool), loop.call_later(2.0, bool)
        loop.call_at(3.0, bool)
        assert loop.timers == [2.0, 3.0, 5.0] == [soon.when(), 3.0, late.when()]
        late.cancel()
        await asyncio.sleep(2.5)
        assert loop.timers == [3.0]

    run(main())


def test_time_stands_still_while_there_is_something_to_do() -> None:
    async def main() -> None:
        for _ in range(1000):
            await asyncio.sleep(0)
        assert now() == 0.0

    run(main())


def test_a_timeout_strikes_at_its_time_and_no_real_time_passes() -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30.0):
                await asyncio.sleep(31.0)
        assert now() == 30.0

    started = time.monotonic()
    run(main())
    assert time.monotonic() - started < 30.0


def test_work_for_a_thread_runs_on_the_loops_own_and_its_outcome_is_the_same() -> None:
    def fail() -> None:
        raise KeyError("k")

    async def main() -> None:
        assert await asyncio.to_thread(threading.get_ident) == threading.get_ident()
        with pytest.raises(KeyError):
            await asyncio.get_running_loop().run_in_executor(None, fail)

    run(main())


def test_a_task_that_waits_for_nothing_is_named_with_the_place_where_it_waits() -> None:
    async def inner() -> None:
        await asyncio.get_running_loop().create_future()

    async def main() -> None:
        other = asyncio.create_task(inner(), name="other")
        await asyncio.Event().wait()
        await other

    with pytest.raises(Stalled, match="everything waits") as error:
        run(main())
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    assert any("other waits in " in line and "inner (test_clock.py:" in line for line in lines)
    assert any("main (test_clock.py:" in line and "Event.wait" in line for line in lines)


def test_a_stalled_run_lets_its_tasks_clean_up() -> None:
    cleaned = []

    async def main() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(True)

    with pytest.raises(Stalled):
        run(main())
    assert cleaned == [True]


def test_a_task_that_does_not_take_its_cancellation_does_not_hide_the_stall() -> None:
    async def main() -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                pass

    with pytest.raises(Stalled, match="everything waits"):
        run(main())


def test_what_repeats_for_ever_ends_at_the_time_limit() -> None:
    async def main() -> None:
        while True:
            await asyncio.sleep(10.0)

    with pytest.raises(Stalled, match=r"1,000 virtual seconds.*\n.*main"):
        run(main(), time_limit=1000.0)


def test_a_loop_that_spins_without_time_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("haptera.testing.clock.TURNS_MAX", 1000)

    async def main() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(Stalled, match="turned 1,000 times"):
        run(main())


async def real_socket() -> None:
    with socket.socket() as sock:
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", 1))


async def connected_socket() -> None:
    with socket.socket() as sock:
        await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=sock)


async def tls() -> None:
    await asyncio.open_connection("localhost", 443, ssl=True)


async def subprocess() -> None:
    await asyncio.create_subprocess_exec("true")


async def datagrams() -> None:
    await asyncio.get_running_loop().create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))


async def reader() -> None:
    asyncio.get_running_loop().add_reader(0, print)


async def name_lookup() -> None:
    await asyncio.get_running_loop().getnameinfo(("127.0.0.1", 1))


@pytest.mark.parametrize("reach_out", [real_socket, connected_socket, tls, subprocess, datagrams, reader, name_lookup])
def test_what_has_real_time_is_refused(reach_out: Callable[[], Coroutine[None, None, None]]) -> None:
    with pytest.raises(NotSimulated, match="not simulated on a virtual clock"):
        run(reach_out())


def test_a_thread_is_refused_where_time_would_pass_over_it() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="worker")

    async def main() -> None:
        thread.start()
        await asyncio.sleep(1.0)

    try:
        with pytest.raises(NotSimulated, match="worker"):
            run(main())
    finally:
        stop.set()
        thread.join()


def test_an_embedded_store_which_has_a_thread_is_refused_by_name(tmp_path: Path) -> None:
    async def main() -> None:
        async with haptera.open(tmp_path / "data") as db:
            await db.set("k", b"v")

    before = set(threading.enumerate())
    with pytest.raises(NotSimulated, match="haptera-log"):
        run(main())
    for thread in set(threading.enumerate()) - before:
        thread._target.__self__.close()  # type: ignore[attr-defined]  # nobody waits for the disk any longer


def drawn() -> list[object]:
    return [random.random(), os.urandom(8), secrets.token_bytes(8), uuid.uuid4(), random.SystemRandom().random()]


async def draw() -> list[object]:
    return drawn()


def test_a_seed_decides_all_randomness_and_nothing_afterwards() -> None:
    random.seed(1)
    expected = random.random()
    random.seed(1)
    first, again, other = run(draw(), seed=7), run(draw(), seed=7), run(draw(), seed=8)
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))
    assert random.random() == expected
    assert os.urandom(16) != os.urandom(16)
    assert drawn()[1:] != drawn()[1:]


def test_the_seed_is_told_with_the_failure() -> None:
    async def main() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no") as error:
        run(main(), seed=42)
    assert error.value.__notes__ == ["on a virtual clock with seed 42"]


def test_a_seed_repeats_a_run_of_two_peers_byte_by_byte_and_moment_by_moment() -> None:
    async def main() -> list[object]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualClockLoop)
        loop.network.delay(lambda: random.uniform(0.001, 0.1))
        for direction in (loop.network.to_acceptor, loop.network.to_dialer):
            direction.chunk = lambda: random.randint(1, 100)
        told: list[object] = []
        async with await haptera.listen("haptera://127.0.0.1:0", services=[Echo()]) as server:
            peer = await haptera.dial(server.url)
            (link,) = loop.network.links
            for transport in (link.dialer, link.acceptor):
                protocol = transport.get_protocol()
                assert isinstance(protocol, asyncio.BufferedProtocol)
                transport.set_protocol(Noting(protocol, lambda data: told.append((loop.time(), data))))
            calls: list[Awaitable[bytes]] = [peer.call("echo", "say", bytes([n]) * n, timeout=60.0) for n in range(20)]
            told.append(await asyncio.gather(*calls))
            await peer.aclose()
        return told

    first = run(main(), seed=3)
    assert len(first) > 20
    assert first == run(main(), seed=3)
    assert first != run(main(), seed=4)


@virtual_clock
async def test_a_test_can_run_on_a_virtual_clock(tmp_path: Path) -> None:
    await asyncio.sleep(3600.0)
    assert now() == 3600.0
    assert tmp_path.is_dir()


def test_the_decorator_takes_what_run_takes() -> None:
    found: list[object] = []

    @virtual_clock(seed=5, time_limit=10.0)
    async def test(seconds: float) -> None:
        found.append(drawn())
        await asyncio.sleep(seconds)

    test(9.0)
    test(seconds=9.0)
    assert found[0] == found[1]
    with pytest.raises(Stalled, match="10 virtual seconds"):
        test(11.0)
