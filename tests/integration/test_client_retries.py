"""A client whose connection is cut again and again, with answers on their way: every change is made once."""

from __future__ import annotations

import asyncio

import pytest

from haptera.client import connect
from haptera.errors import ConnectionLost
from haptera.testing import node, proxy, virtual_clock

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
