"""Readers of very many watches that do next to nothing for an event, so that the server is what is measured.

They are processes of the Go program in `watch_reader`, which needs nothing beside Go. It sends the bytes that are made
here: frames for a node, and messages of gRPC for an etcd.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

import msgspec

from bench import processes
from haptera.wire import FrameType, Hello, Limits, encode_frame, encode_payload, encode_route

if TYPE_CHECKING:
    from collections.abc import Sequence

SOURCE: Final = Path(__file__).parent / "watch_reader"
#: Processes among which the connections are divided.
PROCESSES: Final = 2
#: Bytes of one answer: the counts of 10,000 watches, or the lateness of the events that were looked at.
_LINE_SIZE_MAX: Final = 64 * 1024 * 1024
_LIMITS: Final = Limits()


def build(directory: Path) -> Path | None:
    """Build the program; None where there is no Go."""
    go = shutil.which("go")
    if go is None:
        return None
    program = directory / "watch_reader"
    subprocess.run([go, "build", "-o", str(program), "."], cwd=SOURCE, check=True)
    return program


def node_connection(targets: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The bytes of a connection to a node: HELLO, and a REQUEST for each watch."""
    hello = Hello(
        versions=[1],
        agent="bench",
        session=os.urandom(16),
        nonce=os.urandom(32),
        capabilities=["pipelining", "kv_watch"],
        **msgspec.structs.asdict(_LIMITS),
    )
    route = encode_route("kv", "watch")
    requests = b"".join(
        encode_frame(FrameType.REQUEST, 0, 2 * number + 1, route, msgspec.msgpack.encode([{field: text}]))
        for number, (field, text) in enumerate(targets)
    )
    first = encode_frame(FrameType.HELLO, 0, 0, b"", encode_payload(hello))
    return _connection(first, requests, len(targets), _LIMITS.connection_window)


def etcd_connection(targets: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The bytes of a stream of watches of an etcd."""
    requests = []
    for number, (field, text) in enumerate(targets):
        key = text.encode()
        create = [_text(1, key), _number(7, number + 1)]
        if field == "prefix":
            create.append(_text(2, key[:-1] + bytes([key[-1] + 1])))
        message = _text(1, b"".join(create))
        requests.append(b"\0" + len(message).to_bytes(4, "big") + message)
    return _connection(b"", b"".join(requests), len(targets), 0)


def etcd_put(key: str, value: bytes) -> bytes:
    """The message that puts one key."""
    return _text(1, key.encode()) + _text(2, value)


def etcd_range(key: str) -> bytes:
    """The message that reads one key."""
    return _text(1, key.encode())


def _connection(hello: bytes, requests: bytes, watches: int, window: int) -> dict[str, Any]:
    encode = base64.b64encode
    return {
        "Hello": encode(hello).decode(),
        "Requests": encode(requests).decode(),
        "Watches": watches,
        "Window": window,
    }


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _text(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


class LeanReaders:
    """Processes with watches. An ``async with`` block ends them."""

    def __init__(
        self, program: Path, protocol: str, address: str, connections: Sequence[Sequence[tuple[str, str]]]
    ) -> None:
        self._program = program
        make = node_connection if protocol == "haptera" else etcd_connection
        self._tasks = [
            {
                "Protocol": protocol,
                "Address": urlsplit(address).netloc or address,
                # Else a watch is told of the writes of one key.
                "Consecutive": connections[0][0][0] == "prefix",
                "Connections": [make(targets) for targets in connections[first::PROCESSES]],
            }
            for first in range(min(PROCESSES, len(connections)))
        ]
        self._running: list[asyncio.subprocess.Process] = []

    async def __aenter__(self) -> Self:
        """Start the processes, which begin their watches."""
        for task in self._tasks:
            process = await asyncio.create_subprocess_exec(
                self._program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=_LINE_SIZE_MAX
            )
            self._running.append(process)
            assert process.stdin is not None
            process.stdin.write(json.dumps(task).encode() + b"\n")
        return self

    async def __aexit__(self, *_: object) -> None:
        """End them: the end of its standard input ends each."""
        for process in self._running:
            assert process.stdin is not None
            process.stdin.close()
            await process.wait()

    async def begun(self, seconds: float) -> bool:
        """Whether all watches have begun within this time."""
        try:
            async with asyncio.timeout(seconds):
                for process in self._running:
                    assert process.stdout is not None
                    if await process.stdout.readline() != b"begun\n":
                        raise RuntimeError("a reader of watches has ended")
        except TimeoutError:
            return False
        return True

    async def restart(self, part: float) -> None:
        """Forget what was counted, and look at the lateness of this part of the events."""
        await self._ask(f"restart {part:.9f}")

    async def told(self) -> list[int]:
        """The events of each watch, in no order."""
        return [int(count) for count in await self._ask("told")]

    async def late(self) -> list[float]:
        """The seconds between the beginning of a write and the arrival of its event, of a part of the events."""
        return await self._ask("late")

    def cpu_seconds(self) -> float:
        """Seconds of the processor that they have taken."""
        return sum(processes.cpu_seconds(process.pid) for process in self._running)

    async def _ask(self, question: str) -> list[float]:
        found: list[float] = []
        for process in self._running:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(question.encode() + b"\n")
            found.extend(json.loads(await process.stdout.readline()))
        return found
