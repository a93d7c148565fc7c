"""Lines of judged changes: one after the other for each key, in the order in which they came."""

from __future__ import annotations

import asyncio

import pytest

from haptera.dialects.resp.key_lines import KeyLines
from haptera.testing import virtual_clock


async def take(lines: KeyLines, keys: str, name: str, done: list[str]) -> bool:
    async with lines.turn(keys) as waited:
        done.append(f"+{name}")
        await asyncio.sleep(1)
        done.append(f"-{name}")
        return waited


@virtual_clock
async def test_turns_of_one_key_come_one_after_the_other() -> None:
    lines, done = KeyLines(), list[str]()
    waited = await asyncio.gather(*(take(lines, "k", name, done) for name in "abc"))
    assert done == ["+a", "-a", "+b", "-b", "+c", "-c"]
    assert waited == [False, True, True]
    assert len(lines) == 0


@virtual_clock
async def test_turns_of_different_keys_do_not_wait_for_each_other() -> None:
    lines, done = KeyLines(), list[str]()
    await asyncio.gather(take(lines, "xy", "a", done), take(lines, "z", "b", done))
    assert done == ["+a", "+b", "-a", "-b"]


@virtual_clock
async def test_keys_in_any_order_never_wait_for_each_other_in_a_circle() -> None:
    lines, done = KeyLines(), list[str]()
    async with asyncio.timeout(60):
        await asyncio.gather(*(take(lines, keys, keys, done) for keys in ("xy", "yx", "yzx", "zy", "xx")))
    assert len(done) == 10
    assert len(lines) == 0


@virtual_clock
async def test_a_change_that_is_given_up_leaves_its_lines() -> None:
    lines, done = KeyLines(), list[str]()
    first, second, third = (asyncio.create_task(take(lines, "k", name, done)) for name in "abc")
    await asyncio.sleep(0.1)
    second.cancel()
    first.cancel()
    assert await third
    with pytest.raises(asyncio.CancelledError):
        await first
    assert done == ["+a", "+c", "-c"]
    assert len(lines) == 0
