"""Works with a store as a program with redis-py's asyncio client does."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import redis.asyncio
from redis.exceptions import WatchError

#: Calls at a time, each of which has a connection: inside TLS the client reads all authorities again for each.
CALLS = 25


async def work(url: str, protocol: int) -> None:
    """Make calls, pipelines, transactions and scans, many of them at a time."""
    client: Any = redis.asyncio.Redis.from_url(url, protocol=protocol, decode_responses=True)
    async with client as db:
        await db.flushdb()
        assert await db.set("a", "1", px=100_000, nx=True)
        assert await db.get("a") == "1"
        assert await asyncio.gather(*(db.incr("n") for _ in range(CALLS))) != []
        assert await db.get("n") == str(CALLS)
        async with db.pipeline(transaction=True) as pipe:
            assert await pipe.set("b", "2").get("b").delete("b").execute() == [True, "2", 1]
        async with db.pipeline() as pipe:
            await pipe.watch("n")
            value = int(await pipe.get("n"))
            await db.set("n", "0")
            pipe.multi()
            pipe.set("n", value + 1)
            try:
                await pipe.execute()
            except WatchError:
                pass
            else:
                raise AssertionError("a change of a watched key was overwritten")
        await db.mset({f"s:{number}": number for number in range(300)})
        assert len({key async for key in db.scan_iter("s:*")}) == 300
        async with db.pubsub() as heard:
            await heard.subscribe("__keyevent@0__:del")
            assert (await heard.get_message(timeout=10))["type"] == "subscribe"
            await db.delete("s:1")
            message = await heard.get_message(ignore_subscribe_messages=True, timeout=10)
            assert message["data"] == "s:1"


async def main(url: str) -> None:
    """Do all of it by RESP2 and by RESP3."""
    for protocol in (2, 3):
        await work(url, protocol)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
    print("done")
