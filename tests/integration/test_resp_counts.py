"""Commands in the protocol of Redis are counted one by one, however many of them are submitted together."""

from __future__ import annotations

import asyncio

from haptera.testing import node
from tests.unit.dialects.resp.talks import command


async def test_each_command_of_a_pipeline_is_counted() -> None:
    async with node(storage="memory", listen=("haptera://127.0.0.1:0", "resp://127.0.0.1:0")) as url:
        port = int(url.server.urls[1].rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        pipeline = command("SET", "a", 1) * 3 + command("INCR", "a") * 2 + command("GET", "a") * 5 + command("TTL", "a")
        writer.write(pipeline)
        await asyncio.wait_for(reader.readexactly(3 * 5 + 2 * 4 + 5 * 7 + 5), 20)
        writer.write(command("DBSIZE"))
        await asyncio.wait_for(reader.readexactly(4), 20)
        found = url.node.metrics.values()
        counts = {
            name: found[f'requests_total{{method="kv.{name}"}}'] for name in ("set", "increment", "get", "ttl", "count")
        }
        assert counts == {"set": 3, "increment": 2, "get": 5, "ttl": 1, "count": 1}
        assert (found["kv_writes_total"], found["kv_reads_total"]) == (5, 7)
        writer.close()
