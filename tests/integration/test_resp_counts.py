"""Commands in the protocol of Redis are counted, limited and recorded one by one, however many are done together."""

from __future__ import annotations

import asyncio
import json

import pytest

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


async def test_each_command_of_a_pipeline_takes_a_token() -> None:
    async with node(storage="memory", listen="resp://127.0.0.1:0", session_rate=2, rate_burst=3) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2].partition("?")[0]))
        writer.write(command("GET", "a") * 8)
        lines = [await asyncio.wait_for(reader.readline(), 20) for _ in range(8)]
        writer.write(command("GET", "a"))
        lines.append(await asyncio.wait_for(reader.readline(), 20))
        assert lines[:6] == [b"$-1\r\n"] * 6
        assert all(b"rate" in line for line in lines[6:]), lines
        assert url.node.metrics.requests_rate_limited_total == 3
        writer.close()


@pytest.mark.parametrize("keys", [["a"], ["a", "b", "c"]])
async def test_each_read_of_a_pipeline_is_recorded_where_the_node_records_reads(keys: list[str]) -> None:
    async with node(storage="memory", listen="resp://127.0.0.1:0", audit_data="all") as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2].partition("?")[0]))
        writer.write(command("SET", "a", 1))
        await asyncio.wait_for(reader.readexactly(5), 20)
        writer.write(b"".join(command("GET", key) for key in keys))
        await asyncio.wait_for(reader.readexactly(7 + 5 * (len(keys) - 1)), 20)
        writer.close()
        await url.node.audit.written()
        fs = url.filesystem
        assert fs is not None
        text = b"".join(fs.read(f"/data/audit/{name}") for name in sorted(fs.listdir("/data/audit")))
        events = [json.loads(line) for line in text.splitlines()]
        reads = [(event["key"], event.get("code")) for event in events if event.get("method") == "kv.get"]
        assert reads == [(key, 0 if key == "a" else 4001) for key in keys]
        assert url.node.metrics.kv_failures_total == len(keys) - 1
