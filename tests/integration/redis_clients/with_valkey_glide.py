"""Works with a store as a program with valkey-glide does, against one node without a cluster."""

from __future__ import annotations

import asyncio
import sys
from urllib.parse import urlsplit

from glide import (
    Batch,
    ConditionalChange,
    ExpiryGetEx,
    ExpirySet,
    ExpiryType,
    ExpiryTypeGetEx,
    GlideClient,
    GlideClientConfiguration,
    NodeAddress,
    ProtocolVersion,
    RequestError,
)


async def work(url: str, protocol: ProtocolVersion) -> None:
    """Make the usual calls, batches with and without a transaction, and a scan."""
    parts = urlsplit(url)
    address = NodeAddress(parts.hostname or "", parts.port or 0)
    db = await GlideClient.create(
        GlideClientConfiguration([address], protocol=protocol, client_name="glide", request_timeout=10_000)
    )
    await db.flushall()
    assert await db.set("a", "1") == "OK"
    assert await db.get("a") == b"1"
    assert await db.set("a", "2", conditional_set=ConditionalChange.ONLY_IF_DOES_NOT_EXIST) is None
    assert await db.set("a", "2", expiry=ExpirySet(ExpiryType.SEC, 1000), return_old_value=True) == b"1"
    assert 990 < await db.ttl("a") <= 1000
    assert await db.getex("a", ExpiryGetEx(ExpiryTypeGetEx.PERSIST, None)) == b"2"
    assert await db.mset({"x": "1", "y": "2"}) == "OK"
    assert await db.mget(["x", "nothing", "y"]) == [b"1", None, b"2"]
    assert await db.exists(["x", "y"]) == 2
    assert await db.delete(["x", "y"]) == 2
    # This client may send the calls of several tasks in another order than that of the tasks.
    assert sorted(await asyncio.gather(*(db.incr("n") for _ in range(20)))) == list(range(1, 21))
    batch = Batch(is_atomic=True)
    batch.set("t", "1")
    batch.incrby("t", 4)
    batch.get("t")
    assert await db.exec(batch, raise_on_error=True) == ["OK", 5, b"5"]
    row = Batch(is_atomic=False)
    row.set("r", "text")
    row.incr("r")
    replies = await db.exec(row, raise_on_error=False)
    assert replies is not None
    assert replies[0] == "OK"
    assert isinstance(replies[1], RequestError)
    assert await db.watch(["t"]) == "OK"
    assert await db.unwatch() == "OK"
    cursor: bytes = b"0"
    found: list[bytes] = []
    while True:
        page = await db.scan(cursor, match="?")
        cursor = bytes(page[0])  # type: ignore[arg-type]
        found.extend(page[1])  # type: ignore[arg-type]
        if cursor == b"0":
            break
    assert sorted(set(found)) == [b"a", b"n", b"r", b"t"]
    assert await db.client_getname() == b"glide"
    assert b"redis_version" in await db.info()
    await db.close()


async def main(url: str) -> None:
    """Do all of it by RESP2 and by RESP3."""
    for protocol in (ProtocolVersion.RESP2, ProtocolVersion.RESP3):
        await work(url, protocol)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
    print("done")
