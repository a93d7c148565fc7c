"""The target of a run: a served store, one embedded in this process, or a server of the messaging workloads."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final, Literal

from haptera.client import Database, locate, open_embedded
from haptera.errors import ConnectionLost

if TYPE_CHECKING:
    from haptera.cli.benchmark.settings import Settings
    from haptera.cli.client_command import Client
    from haptera.peer import Peer

#: How long the process of the messaging workloads' server may take until it listens.
START_SECONDS_MAX: Final = 10.0

_SERVER: Final = """
import sys
from haptera.cli.benchmark.event_loop import run
from haptera.cli.benchmark.service import serve
run(serve(sys.argv[1], lambda server: print(server.url, flush=True), until_input_ends=True))
"""


@asynccontextmanager
async def served_store(settings: Settings, client: Client) -> AsyncIterator[list[Database]]:
    """A database for each connection to the store that ``client`` finds."""
    async with AsyncExitStack() as stack:
        databases = []
        for _ in range(settings.connections):
            database = await stack.enter_async_context(client.connect())
            databases.append(database)
            await database.exists("x")  # a failure to connect shows before the run, and the run measures no handshake
        yield databases


@asynccontextmanager
async def embedded_store(
    settings: Settings, directory: str, durability: Literal["sync", "os"]
) -> AsyncIterator[list[Database]]:
    """A database that is made in ``directory``, in this process."""
    async with open_embedded(directory, durability=durability, timeout=settings.timeout_s) as database:
        yield [database]


@asynccontextmanager
async def hosted_service(settings: Settings, client: Client) -> AsyncIterator[list[Peer]]:
    """The peers of all connections to the server that ``client`` names; without a name one starts in a process of its
    own.
    """
    async with AsyncExitStack() as stack:
        url = client.url
        if url is None:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="haptera-bench-"))
            url = await stack.enter_async_context(_server_process(f"haptera+unix://{directory}/bench.sock"))
        address = locate(url).address
        places = address.places
        peers = []
        for number in range(settings.connections):
            place = places[number % len(places)]
            peers.append(await stack.enter_async_context(client.connect_peer(str(address.at([place])))))
        yield peers


@asynccontextmanager
async def _server_process(url: str) -> AsyncIterator[str]:
    """Host the service in another process, which ends with this one, however this one ends: its input does."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _SERVER, url, stdin=pipe, stdout=pipe, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_SECONDS_MAX):
            line = await process.stdout.readline()
        if not line:
            raise ConnectionLost("the server of the workload did not start", outcome="not_applied")
        yield line.decode().strip()
    except TimeoutError:
        raise ConnectionLost("the server of the workload did not start in time", outcome="not_applied") from None
    finally:
        process.stdin.close()
        try:
            async with asyncio.timeout(START_SECONDS_MAX):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
