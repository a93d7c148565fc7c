"""SCAN, KEYS and RANDOMKEY find keys as in Redis, in slices."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from haptera.dialects.resp.reply_encoding import array_of_bulks
from haptera.dialects.resp.resp_state import RespState
from haptera.dialects.resp.scan_positions import SIZE_MAX, USER_SIZE_MAX, ScanPositions
from haptera.node.commands import operations
from haptera.testing import virtual_clock
from tests.unit.dialects.resp.talks import Talk, command
from tests.unit.node.nodes import Asked, opened

if TYPE_CHECKING:
    from haptera.node.node import Node

INVALID_CURSOR = b"-ERR invalid cursor\r\n"
SYNTAX = b"-ERR syntax error\r\n"


async def done(talk: Talk, *words: bytes | str | int) -> bytes:
    talk.send(command(*words))
    return await talk.waited()


async def scanned(talk: Talk, *options: str | int, cursor: str = "0") -> tuple[str, list[str]]:
    """One step of a scan: the cursor that it gives, and the keys."""
    said = (await done(talk, "SCAN", cursor, *options)).decode()
    found = re.fullmatch(r"\*2\r\n\$\d+\r\n(\d+)\r\n\*\d+\r\n(?s:(.*))", said)
    assert found is not None, said
    return found[1], found[2].split("\r\n")[1::2]


async def whole_scan(talk: Talk, *options: str | int) -> list[str]:
    cursor, keys = await scanned(talk, *options)
    while cursor != "0":
        cursor, more = await scanned(talk, *options, cursor=cursor)
        keys += more
    return keys


async def fill(node: Node, count: int) -> list[str]:
    keys = [f"key:{number:05}" for number in range(count)]
    Asked(node, operations.SetMany([(key, b"x") for key in keys]))
    await node.drain()
    return keys


@virtual_clock
async def test_a_scan_gives_each_key_once_in_steps() -> None:
    async with opened() as node:
        keys, talk = await fill(node, 1234), Talk(node)
        assert await whole_scan(talk) == keys
        assert await whole_scan(talk, "COUNT", 100) == keys
        assert await whole_scan(talk, "count", 2**40) == keys
        cursor, first = await scanned(talk)
        assert len(first) == 10
        assert 0 < int(cursor) < 2**53


@virtual_clock
async def test_a_scan_gives_keys_that_match_and_are_of_a_type() -> None:
    async with opened() as node:
        keys, talk = await fill(node, 300), Talk(node)
        assert await whole_scan(talk, "MATCH", "key:0001?") == keys[10:20]
        assert await whole_scan(talk, "MATCH", "*[1-2]00", "TYPE", "string") == [keys[100], keys[200]]
        assert await whole_scan(talk, "MATCH", "none*") == []
        assert await whole_scan(talk, "TYPE", "list") == []
        assert await scanned(talk, "MATCH", "*99", "COUNT", 10) != ("0", [])


@virtual_clock
async def test_keys_that_stay_are_given_though_others_come_and_go() -> None:
    async with opened() as node:
        keys, talk = await fill(node, 100), Talk(node)
        cursor, found = await scanned(talk)
        number = 0
        while cursor != "0":
            for word in (f"DEL {keys[number]}", f"SET key:0{number}x 1", f"DEL {found[-1]}"):
                await talk.say(word.encode() + b"\r\n")
            number += 2
            cursor, more = await scanned(talk, cursor=cursor)
            found += more
        staying = [key for key in keys if await talk.do("EXISTS", key) == b":1\r\n"]
        assert set(staying) <= set(found)


@virtual_clock
async def test_a_scan_goes_on_at_another_connection_of_the_listener() -> None:
    async with opened() as node:
        keys, state = await fill(node, 20), RespState()
        cursor, first = await scanned(Talk(node, state=state))
        assert (await scanned(Talk(node, state=state), "COUNT", 11, cursor=cursor)) == ("0", keys[10:])
        assert first == keys[:10]
        assert await done(Talk(node), "SCAN", cursor) == INVALID_CURSOR, "another listener does not know it"


@pytest.mark.parametrize(
    ("words", "reply"),
    [
        (("x",), INVALID_CURSOR),
        (("-1",), INVALID_CURSOR),
        ((" 1",), INVALID_CURSOR),
        ((2**64,), INVALID_CURSOR),
        ((7,), INVALID_CURSOR),
        ((0, "COUNT"), SYNTAX),
        ((0, "COUNT", 0), SYNTAX),
        ((0, "COUNT", "x"), b"-ERR value is not an integer or out of range\r\n"),
        ((0, "FOO", 1), SYNTAX),
        ((0, "MATCH", "x" * 8193), b"-ERR the pattern is longer than 8192 bytes\r\n"),
    ],
)
@virtual_clock
async def test_wrong_scans_have_the_words_of_redis(words: tuple[str | int, ...], reply: bytes) -> None:
    async with opened() as node:
        assert await done(Talk(node), "SCAN", *words) == reply


@virtual_clock
async def test_all_keys_that_match_are_found() -> None:
    async with opened() as node:
        keys, talk = [key.encode() for key in await fill(node, 5000)], Talk(node)
        assert await done(talk, "KEYS", "*") == array_of_bulks(keys)
        assert await done(talk, "KEYS", "key:0001[2-4]") == array_of_bulks(keys[12:15])
        assert await done(talk, "KEYS", "\xff*") == b"*0\r\n"
        assert await done(talk, "KEYS", b"\xff*") == b"*0\r\n"


@virtual_clock
async def test_each_key_may_be_the_random_one() -> None:
    async with opened() as node:
        talk = Talk(node)
        assert await done(talk, "RANDOMKEY") == b"$-1\r\n"
        names = ["a", "ab", "abc", "b", "key:1", "key:19", "z"]
        await talk.do("MSET", *(word for name in names for word in (name, 1)))
        found = {(await done(talk, "RANDOMKEY")).split(b"\r\n")[1].decode() for _ in range(400)}
        assert found == set(names)
        await talk.do("MSET", "über", 1, "\ud7ff", 1, "\U0010ffff", 1)
        found = {(await done(talk, "RANDOMKEY")).split(b"\r\n")[1].decode() for _ in range(100)}
        assert "\U0010ffff" in found


def test_the_positions_of_scans_are_bounded_for_each_user_and_the_oldest_go_first() -> None:
    positions = ScanPositions()
    kept = positions.cursor("a", "x" * 4000)
    assert positions.key("a", kept) == "x" * 4000
    assert positions.key("b", kept) is None
    assert positions.cursor("a", "x" * 4000) == kept, "the same position has the same number"
    other = positions.cursor("b", "y")
    cursors = [positions.cursor("a", f"{number:04000}") for number in range(500)]
    assert positions.key("a", kept) is None
    assert positions.key("a", cursors[0]) is None
    assert positions.key("a", cursors[-1]) == f"{499:04000}"
    assert positions.key("b", other) == "y"
    assert positions._sizes["a"] <= USER_SIZE_MAX


def test_the_positions_of_all_users_are_bounded_and_the_largest_share_gives_way() -> None:
    positions = ScanPositions()
    small = positions.cursor("small", "k")
    for user in range(40):
        for number in range(120):
            positions.cursor(f"u{user}", f"{number:04000}")
    assert positions._size <= SIZE_MAX
    assert positions._size == sum(positions._sizes.values())
    assert positions.key("small", small) == "k"
