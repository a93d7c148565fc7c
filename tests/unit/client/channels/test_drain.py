"""A client under load whose servers go away in an orderly way, one after the other: no call may fail."""

from __future__ import annotations

import asyncio
import os
import random
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import haptera
from haptera import Request, Server, Service
from haptera.client.channels.remote_channel import RemoteChannel
from haptera.client.database import Database
from haptera.transport import parse

if TYPE_CHECKING:
    from pathlib import Path

encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode


class Store(Service):
    """As much of the kv service as the test needs, slow, and remembering what was applied under which id."""

    name = "kv"

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.applied: list[bytes | None] = []
        self.running: set[asyncio.Task[None]] = set()

    def methods(self) -> list[str]:
        return ["get", "set"]

    def handle(self, requests: list[Request]) -> None:
        for request in requests:
            task = asyncio.get_running_loop().create_task(self.answer(request))
            self.running.add(task)
            task.add_done_callback(self.running.discard)

    async def answer(self, request: Request) -> None:
        await asyncio.sleep(random.random() * 0.004)
        argument = decode(request.payload)
        if request.method == "set":
            self.values[argument[0]] = argument[1]
            self.applied.append(request.request_id)
            request.respond(encode([len(self.applied), None]))
        else:
            request.respond(encode([self.values.get(argument[0], b""), 1, None]))


async def serve(url: str, store: Store) -> Server:
    """A server with an id of its own: none of them remembers what was sent to another."""
    while True:
        try:
            return await haptera.listen(url, services=[store], server_id=os.urandom(16))
        except haptera.errors.ConfigurationError:
            await asyncio.sleep(0.001)  # the one before has not gone yet


@pytest.mark.parametrize("scheme", ["unix", "tcp"])
async def test_no_call_fails_while_servers_are_replaced_under_load(scheme: str, short_path: Path) -> None:
    store = Store()
    server = await serve(f"haptera+unix://{short_path}/s" if scheme == "unix" else "haptera://127.0.0.1:0", store)
    url = server.url
    database = Database(RemoteChannel(parse(url), url), url, 30.0)
    await database.set("warm", b"")
    stop = False
    changes = reads = 0

    async def work(number: int) -> None:
        nonlocal changes, reads
        turn = 0
        while not stop:
            turn += 1
            value = b"%d" % turn
            await database.set(f"k{number}", value)
            changes += 1
            entry = await database.get(f"k{number}")
            reads += 1
            assert entry is not None
            assert entry.value == value

    working = [asyncio.create_task(work(number)) for number in range(20)]
    accepted = 0
    for _ in range(6):
        before = changes
        while changes < before + 100:
            await asyncio.sleep(0.001)
            assert not any(task.done() for task in working)
        server.close()
        following = asyncio.create_task(serve(url, store))
        await server.drain()
        accepted += server.accepted
        server = await following
    stop = True
    await asyncio.gather(*working)
    await database.drain()
    await server.aclose()
    assert accepted >= 6
    assert len(store.applied) == len(set(store.applied)) == changes + 1  # each once: nothing was sent twice
    assert reads > 0


async def test_an_answer_that_waits_behind_a_goaway_still_comes(short_path: Path) -> None:
    class Slow(Store):
        async def answer(self, request: Request) -> None:
            started.set()
            await release.wait()
            await super().answer(request)

    started, release = asyncio.Event(), asyncio.Event()
    server = await haptera.listen(f"haptera+unix://{short_path}/s", services=[Slow()])
    database: Any = await haptera.connect(server.url)
    call = asyncio.create_task(database.set("k", b"v"))
    await started.wait()
    draining = asyncio.create_task(server.drain())
    while server.peers and not next(iter(server.peers)).going_away:
        await asyncio.sleep(0.001)
    release.set()
    assert await call == 1
    await draining
    await database.aclose()
