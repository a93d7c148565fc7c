"""A client whose connection is cut again and again, with answers on their way: every change is made once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import pytest

import haptera
from haptera import Request, Service
from haptera.client import connect
from haptera.errors import ConnectionLost, ServerError, failure
from haptera.peer.connector import OLDER_MAX
from haptera.testing import VirtualClockLoop, node, proxy, virtual_clock
from haptera.wire.frame import HEADER_SIZE

if TYPE_CHECKING:
    from pathlib import Path

    from haptera.client import Database

CALLS = 300


@pytest.mark.parametrize("cut_every", [3, 5])
@virtual_clock
async def test_each_change_is_made_once_whatever_is_cut(cut_every: int) -> None:
    async with node(storage="memory", listen="tcp") as url, proxy(url) as through:
        through.sever_after(cut_every)
        db = connect(through.url, timeout=60)
        await db.set("n", "0")

        async def worker() -> None:
            for _ in range(CALLS // 10):
                await db.increment("n")

        await asyncio.gather(*(worker() for _ in range(10)))
        assert through.severed > 0
        through.sever_after(None)
        entry = await db.get("n")
        assert entry is not None
        assert entry.text == str(CALLS)
        await db.aclose()


class NoNode(asyncio.Protocol):
    """Something that answers in another protocol, and keeps the connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)

    def eof_received(self) -> bool:
        return True


@virtual_clock
async def test_closing_leaves_no_transport_of_a_connection_that_was_given_up() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualClockLoop)
    server = await loop.create_server(NoNode, "no-node", 7457)
    db = connect("haptera://no-node", wait=False)
    with pytest.raises(ConnectionLost):
        await db.get("k")
    await db.aclose()
    assert [link for link in loop.network.links if not link.dialer.is_closing()] == []
    assert not asyncio.all_tasks(loop) - {asyncio.current_task()}
    server.close()


@virtual_clock
async def test_more_than_a_thousand_clients_that_start_at_one_instant_all_get_in() -> None:
    """Trap: a bound against silent strangers that hits an honest burst. All connect before the first says HELLO."""
    async with node(storage="memory", listen="tcp") as url:
        databases = [connect(url) for _ in range(1100)]
        await asyncio.gather(*(db.increment("n") for db in databases))
        entry = await databases[0].get("n")
        assert entry is not None
        assert entry.text == "1100"
        assert sum(server.refused for server in url.server._servers) == 0
        await asyncio.gather(*(db.aclose() for db in databases))


@virtual_clock
async def test_clients_beyond_the_bound_are_refused_and_come_again() -> None:
    """Trap: a retryable refusal that the first connection does not retry."""
    async with node(storage="memory", listen="tcp", max_half_open=50) as url:
        databases = [connect(url, timeout=30.0) for _ in range(200)]
        await asyncio.gather(*(db.get("n") for db in databases))
        assert sum(server.refused for server in url.server._servers) > 0
        await asyncio.gather(*(db.aclose() for db in databases))


@virtual_clock
async def test_reads_and_scans_outlive_a_cut() -> None:
    async with node(storage="memory", listen="tcp") as url, proxy(url) as through:
        through.sever_after(3)
        db = connect(through.url, timeout=60)
        await db.set_many({f"k{n}": str(n) for n in range(100)})
        for n in range(100):
            entry = await db.get(f"k{n}")
            assert entry is not None
            assert entry.text == str(n)
            assert await db.count() == 100
        assert len([entry async for entry in db.scan()]) == 100
        assert through.severed > 10
        await db.aclose()


@virtual_clock
async def test_scan_that_is_cut_in_the_middle_says_so() -> None:
    async with node(storage="memory", listen="tcp") as url, proxy(url) as through, connect(through.url) as db:
        for part in range(8):
            await db.set_many({f"k{part}{n:05}": b"x" * 1000 for n in range(1000)})
        through.sever_after(4)
        seen: list[str] = []

        async def read() -> None:
            async for entry in db.scan():
                seen.append(entry.key)  # noqa: PERF401 - what came before the loss counts

        with pytest.raises(ConnectionLost):
            await read()
        assert len(seen) < 8000


@virtual_clock
async def test_no_damage_to_an_answer_is_the_callers_trouble() -> None:
    """Trap: a change applied twice. Its answer is damaged, it is repeated under its id, and meanwhile other changes of
    the connection say which answers have been read.
    """
    async with node(storage="memory", listen="tcp") as url:
        for offset in range(0, 240, 6):
            async with proxy(url) as through, connect(through.url) as db:
                before = await db.increment("n")
                made: list[int] = []

                async def worker(db: Database, made: list[int]) -> None:
                    for _ in range(20):
                        made.append(await db.increment("n"))
                        await asyncio.sleep(0.002)

                through.corrupt("to_dialer", at=through.to_dialer.sent + offset)
                await asyncio.gather(*(worker(db, made) for _ in range(4)))
                assert through.to_dialer.corrupted == 1
                assert sorted(made) == list(range(before + 1, before + 81))


def key_file(path: Path, key: bytes) -> Path:
    path.write_bytes(key)
    path.chmod(0o600)
    return path


@virtual_clock
async def test_who_has_another_key_learns_it_at_once(tmp_path: Path) -> None:
    key, other = key_file(tmp_path / "key", b"k" * 32), key_file(tmp_path / "other", b"o" * 32)
    async with (
        node(storage="memory", listen="tcp", signing_key_file=str(key)) as url,
        proxy(url) as through,
        connect(f"{through.url}?signed=psk&key_file={other}") as db,
    ):
        for number, call in enumerate((db.get("k"), db.set("k", "v"), db.count()), 1):
            with pytest.raises(ConnectionLost, match=r"SIGNATURE_MISMATCH \(1011\)"):
                await call
            assert through.connections == number


@virtual_clock
async def test_damage_on_a_signed_connection_is_no_other_key(tmp_path: Path) -> None:
    key = key_file(tmp_path / "key", b"k" * 32)
    async with (
        node(storage="memory", listen="tcp", signing_key_file=str(key)) as url,
        proxy(url) as through,
        connect(f"{through.url}?signed=psk&key_file={key}") as db,
    ):
        await db.set("k", "v")
        through.corrupt("to_acceptor", at=through.to_acceptor.sent + 30)
        entry = await db.get("k")
        assert entry is not None
        assert entry.text == "v"
        assert through.to_acceptor.corrupted == 1
        assert through.connections == 2


@virtual_clock
async def test_what_ends_each_new_connection_is_told_when_time_is_over(tmp_path: Path) -> None:
    async with node(storage="memory", listen="tcp") as url, proxy(url) as through, connect(through.url) as db:
        await db.set("k", "v")
        through.sever_after(0)
        through.sever()
        with pytest.raises(ConnectionLost, match=r"no connection to .* in time \(the connection was lost: "):
            await db.get("k")


class Leaving(Service):
    """A store that answers every call with one refusal, and keeps its connections."""

    name = "kv"

    def __init__(self, code: int) -> None:
        self.code = code
        self.held: list[Request] = []

    def handle(self, requests: list[Request]) -> None:
        for request in requests:
            if request.method == "count":
                self.held.append(request)
            else:
                request.fail(failure(self.code, outcome="not_applied"))


@pytest.mark.parametrize("code", [1014, 5005])
@virtual_clock
async def test_connections_to_a_server_that_only_goes_away_do_not_pile_up(code: int) -> None:
    async with await haptera.listen("haptera://127.0.0.1:0", services=[Leaving(code)]) as server:
        db = connect(server.url)
        most = 0
        for _ in range(100):
            with pytest.raises((ServerError, ConnectionLost), match=f"({code})"):
                await db.get("k", timeout=0.2)
            most = max(most, len(server.peers))
        assert most <= 2  # one in use, one on its way out
        assert server.accepted < 50  # a wait that grows lies between two
        await db.aclose()


@virtual_clock
async def test_connection_that_was_left_ends_with_its_last_call() -> None:
    service = Leaving(1014)
    async with await haptera.listen("haptera://127.0.0.1:0", services=[service]) as server:
        db = connect(server.url)
        counts = []
        for number in range(OLDER_MAX + 3):
            counts.append(asyncio.ensure_future(db.count(timeout=600)))
            while len(service.held) <= number:
                await asyncio.sleep(0.01)
            with pytest.raises((ServerError, ConnectionLost)):
                await db.get("k", timeout=0.001)
            assert len(server.peers) <= OLDER_MAX + 1
        assert not any(count.done() for count in counts)
        while not all(count.done() for count in counts):
            for request in service.held:
                request.respond(msgspec.msgpack.encode([7]))
            await asyncio.sleep(0.01)
        assert [count.result() for count in counts] == [7] * len(counts)
        await asyncio.sleep(0.01)
        assert len(server.peers) <= 1
        await db.aclose()


@virtual_clock
async def test_damaged_answers_are_asked_for_again() -> None:
    async with node(storage="memory", listen="tcp") as url, proxy(url) as through, connect(through.url) as db:
        await db.set("k", "v")
        await db.set("n", "0")
        for number in range(1, 21):
            # Behind the header of the next frame: what is found wrong is the answer, and the connection goes on.
            through.corrupt("to_dialer", at=through.to_dialer.sent + HEADER_SIZE)
            assert await db.increment("n") == number
            through.corrupt("to_dialer", at=through.to_dialer.sent + HEADER_SIZE)
            entry = await db.get("k")
            assert entry is not None
            assert entry.text == "v"
        assert through.to_dialer.corrupted == 40
        assert through.connections == 1
