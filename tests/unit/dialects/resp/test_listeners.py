"""The connections of several listeners of a node: they have one another's numbers, channels and scans."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from haptera.testing import node, virtual_clock
from tests.unit.dialects.resp.served import Wire

if TYPE_CHECKING:
    from haptera.testing import NodeUrl

OK = b"+OK\r\n"


async def wire_to(url: NodeUrl, place: int) -> Wire:
    port = int(url.server.urls[place].rpartition(":")[2].partition("?")[0])
    return Wire(*await asyncio.open_connection("127.0.0.1", port))


@virtual_clock
async def test_the_connections_of_two_listeners_count_together_and_may_tell_each_other() -> None:
    listen = ("resp://127.0.0.1:0", "resp://127.0.0.1:0?debug=yes")
    async with node(storage="memory", listen=listen) as url:
        here, there = await wire_to(url, 0), await wire_to(url, 1)
        await here.do("SUBSCRIBE", "__redis__:invalidate")
        assert (
            await there.do("PUBSUB", "NUMSUB", "__redis__:invalidate") == b"*2\r\n$20\r\n__redis__:invalidate\r\n:1\r\n"
        )
        [connection, _] = url.server._facts.connections()
        assert await there.do("CLIENT", "TRACKING", "ON", "REDIRECT", connection.caller.number) == OK
        await there.do("GET", "a")
        await there.do("SET", "a", "1")
        assert await here.reply() == b"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n*1\r\n$1\r\na\r\n"
        assert await there.do("DEBUG", "SLEEP", "0") == OK
        other = await wire_to(url, 0)
        assert (await other.do("DEBUG", "SLEEP", "0")).startswith(b"-ERR DEBUG command not allowed")
        for each in (here, there, other):
            each.close()


@virtual_clock
async def test_the_connections_of_another_node_of_the_process_are_apart() -> None:
    listen = "resp://127.0.0.1:0"
    async with node(storage="memory", listen=listen) as one, node(storage="memory", listen=listen) as two:
        here, there = await wire_to(one, 0), await wire_to(two, 0)
        await here.do("SUBSCRIBE", "any")
        assert await there.do("PUBSUB", "CHANNELS") == b"*0\r\n"
        here.close()
        there.close()
