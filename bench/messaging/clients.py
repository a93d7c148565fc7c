"""The contenders' clients, each in a process of its own, so that the threads and timers of one do not slow another.

``python -m bench.messaging.clients NAME PORT PID LOOP`` is such a process. It reads a command a line from its input,
``["calls", {…}]`` with the arguments of the function in `rounds`, and answers each with a line of JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from bench.messaging import rounds
from bench.messaging.servers import CONTENDERS, Running, loop_factory

if TYPE_CHECKING:
    from bench.messaging.contender import Client


class Remote:
    """A client process, from the outside."""

    def __init__(self, name: str, process: subprocess.Popen[str]) -> None:
        self.name = name
        self._process = process

    def do(self, what: str, **arguments: float) -> dict[str, float]:
        """Have something measured. Raises ``RuntimeError`` if the process ended over it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([what, arguments]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the client of {self.name} ended with {self._process.wait()} at {what} {arguments}")
        found: dict[str, float] = json.loads(line)
        return found


@contextlib.contextmanager
def remote(server: Running, loop: str) -> Iterator[Remote]:
    """A client of ``server`` in a new process."""
    name = server.contender.name
    command = [sys.executable, "-m", "bench.messaging.clients", name, str(server.port), str(server.pid), loop]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Remote(name, process)
    finally:
        process.communicate()


async def _obey(server: Running) -> None:
    loop = asyncio.get_running_loop()
    client: Client | None = None
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        what, arguments = json.loads(line)
        if client is None and what in {"calls", "stream"}:
            client = await server.contender.connect(server.port)
        print(json.dumps(await _do(server, client, what, arguments)), flush=True)
    if client is not None:
        await client.aclose()


async def _do(server: Running, client: Client | None, what: str, arguments: dict[str, Any]) -> dict[str, float]:
    match what:
        case "calls":
            assert client is not None
            return await rounds.calls_per_second(client, **arguments)
        case "stream":
            assert client is not None
            return await rounds.stream_rate(client, **arguments)
        case "wire":
            return await rounds.bytes_per_call(server, **arguments)
        case _:
            return await rounds.idle_connections(server, **arguments)


if __name__ == "__main__":
    _, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_hard, _hard))
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    _name, _port, _pid, _loop = sys.argv[1:]
    _contender = next(each for each in CONTENDERS if each.name == _name)
    with asyncio.Runner(loop_factory=loop_factory(_loop)) as _runner:
        _runner.run(_obey(Running(_contender, int(_port), int(_pid))))
