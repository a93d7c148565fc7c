"""The inventory with a store for each test, over networks and disks that fail, and over minutes that pass at once."""

from __future__ import annotations

import asyncio
import random

import pytest

import haptera
import haptera.errors
from haptera.testing import MemoryFileSystem, Proxy, node, run, virtual_clock
from inventory import HELD_S, Inventory, SoldOut


async def test_pieces_that_are_reserved_are_not_free(inventory: Inventory) -> None:
    await inventory.reserve("apple", "ann", 7)
    assert await inventory.free("apple") == 3
    with pytest.raises(SoldOut):
        await inventory.reserve("apple", "bob", 4)
    await inventory.reserve("apple", "ann", 2)
    assert await inventory.free("apple") == 8


async def test_customers_who_come_at_once_are_not_promised_more_than_there_is(inventory: Inventory) -> None:
    customers = [inventory.reserve("apple", f"customer-{number}", 3) for number in range(20)]
    ended = await asyncio.gather(*customers, return_exceptions=True)
    assert sum(error is None for error in ended) == 3
    assert await inventory.free("apple") == 1


async def test_a_sale_over_connections_that_are_cut_is_made_once(inventory: Inventory, haptera_proxy: Proxy) -> None:
    await inventory.reserve("apple", "ann", 7)
    async with haptera.connect(haptera_proxy.url) as db:
        haptera_proxy.sever_after(1, "to_dialer")  # lets the welcome of each connection pass, and loses the answer
        buying = asyncio.ensure_future(Inventory(db).buy("apple", "ann"))
        await asyncio.sleep(0.1)
        haptera_proxy.sever_after(1000)
        assert await buying
    assert await inventory.free("apple") == 3


@virtual_clock
async def test_a_reservation_ends_after_a_quarter_of_an_hour() -> None:
    async with node(storage="memory") as url, haptera.connect(url) as db:
        inventory = Inventory(db)
        await inventory.stock("apple", 10)
        await inventory.reserve("apple", "ann", 7)
        await asyncio.sleep(HELD_S - 1)
        assert await inventory.free("apple") == 3
        await asyncio.sleep(2)
        assert await inventory.free("apple") == 10
        assert not await inventory.buy("apple", "ann")


async def test_a_reservation_that_a_full_disk_refuses_is_none() -> None:
    disk = MemoryFileSystem()
    async with node(storage=disk) as url, haptera.connect(url) as db:
        inventory = Inventory(db)
        await inventory.stock("apple", 10)
        disk.failing = frozenset({"fdatasync"})
        with pytest.raises(haptera.errors.StorageFailed):
            await inventory.reserve("apple", "ann", 7)
        after = disk.power_failure("drop")
    async with node(storage=after) as url, haptera.connect(url) as db:
        assert await Inventory(db).free("apple") == 10


async def rush() -> int:
    """Let 30 customers come over a network that is slow and cut at random. Gives how many pieces were sold."""
    loop = asyncio.get_running_loop()
    async with node(storage="memory") as url, haptera.connect(url) as db:
        inventory = Inventory(db)
        await inventory.stock("apple", 10)
        loop.network.delay(lambda: random.uniform(0.0, 0.2))  # type: ignore[attr-defined]
        for _ in range(10):
            loop.call_later(random.uniform(0.0, 5.0), loop.network.sever)  # type: ignore[attr-defined]

        async def customer(number: int) -> int:
            try:
                await inventory.reserve("apple", f"customer-{number}", 3)
            except SoldOut:
                return 0
            return 3 if await inventory.buy("apple", f"customer-{number}") else 0

        sold = sum(await asyncio.gather(*map(customer, range(30))))
        assert await inventory.free("apple") == 10 - sold
        return sold


@pytest.mark.parametrize("seed", range(5))
def test_a_rush_over_a_bad_network_sells_what_there_is_and_no_more(seed: int) -> None:
    assert run(rush(), seed=seed) == 9
