"""A client whose connection is cut again and again, with answers on their way: every change is made once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from haptera.client import connect
from haptera.errors import ConnectionLost
from tests.integration.served import served

if TYPE_CHECKING:
    from pathlib import Path

CALLS = 300


class CuttingProxy:
    """Forwards to ``target`` and cuts a connection when the answers of ``cut_every`` reads are due on it."""

    def __init__(self, target: str, cut_every: int) -> None:
        self._host, port = target.removeprefix("haptera://").split(":")
        self._port = int(port)
        self._cut_every = cut_every
        self._tasks: set[asyncio.Task[None]] = set()
        self.cuts = 0
        self.cutting = True
        self.url = ""

    async def __aenter__(self) -> CuttingProxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"haptera://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        server_reader, server_writer = await asyncio.open_connection(self._host, self._port)
        forward = asyncio.ensure_future(self._forward(reader, server_writer))
        reads = 0
        try:
            while data := await server_reader.read(65536):
                reads += 1
                if self.cutting and reads > self._cut_every:
                    self.cuts += 1
                    break  # what was read is an answer that never arrives
                writer.write(data)
        finally:
            forward.cancel()
            for each in (writer, server_writer):
                each.transport.abort()
            self._tasks.discard(task)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)


@pytest.mark.parametrize("cut_every", [3, 5])
async def test_each_change_is_made_once_whatever_is_cut(tmp_path: Path, cut_every: int) -> None:
    async with served(tmp_path / "data") as url, CuttingProxy(url, cut_every) as proxy:
        db = connect(proxy.url, timeout=60)
        await db.set("n", "0")

        async def worker() -> None:
            for _ in range(CALLS // 10):
                await db.increment("n")

        await asyncio.gather(*(worker() for _ in range(10)))
        assert proxy.cuts > 0
        proxy.cutting = False
        entry = await db.get("n")
        assert entry is not None
        assert entry.text == str(CALLS)
        await db.aclose()


async def test_reads_and_scans_outlive_a_cut(tmp_path: Path) -> None:
    async with served(tmp_path / "data") as url, CuttingProxy(url, 3) as proxy:
        db = connect(proxy.url, timeout=60)
        await db.set_many({f"k{n}": str(n) for n in range(100)})
        for n in range(100):
            entry = await db.get(f"k{n}")
            assert entry is not None
            assert entry.text == str(n)
            assert await db.count() == 100
        assert len([entry async for entry in db.scan()]) == 100
        assert proxy.cuts > 10
        await db.aclose()


async def test_scan_that_is_cut_in_the_middle_says_so(tmp_path: Path) -> None:
    async with served(tmp_path / "data") as url, CuttingProxy(url, 4) as proxy, connect(proxy.url) as db:
        proxy.cutting = False
        for part in range(8):
            await db.set_many({f"k{part}{n:05}": b"x" * 1000 for n in range(1000)})
        proxy.cutting = True
        seen: list[str] = []

        async def read() -> None:
            async for entry in db.scan():
                seen.append(entry.key)  # noqa: PERF401 - what came before the loss counts

        with pytest.raises(ConnectionLost):
            await read()
        assert len(seen) < 8000
