"""Works with a store as a program with coredis does."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from typing import Any

import coredis
from coredis import PureToken


async def work(db: Any) -> None:
    """Make the usual calls, a pipeline with a transaction and a scan."""
    await db.flushdb()
    assert await db.set("a", "1", ex=timedelta(seconds=1000))
    assert await db.get("a") == "1"
    assert 990 < await db.ttl("a") <= 1000
    assert not await db.set("a", "2", condition=PureToken.NX)
    assert await db.incr("n") == 1
    assert await db.incrby("n", 9) == 10
    assert await db.mset({"x": "1", "y": "2"})
    assert tuple(await db.mget(["x", "nothing", "y"])) == ("1", None, "2")
    assert await db.exists(["x", "y"]) == 2
    assert await db.delete(["x", "y"]) == 2
    assert await db.getdel("n") == "10"
    assert await db.expire("a", 5000, condition=PureToken.GT)
    assert await db.type("a") == "string"
    assert await db.rename("a", "b")
    async with db.pipeline(transaction=True) as pipe:
        results = [pipe.set("t", "1"), pipe.incr("t"), pipe.get("t")]
    assert [await each for each in results] == [True, 2, "2"]
    for number in range(50):
        await db.set(f"s:{number}", str(number))
    assert len({key async for key in db.scan_iter(match="s:*")}) == 50
    assert await db.dbsize() == 52
    assert (await db.ping()) in {"PONG", b"PONG"}


async def main(url: str) -> None:
    """Do all of it."""
    async with coredis.Redis.from_url(url, decode_responses=True) as db:
        await work(db)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
    print("done")
