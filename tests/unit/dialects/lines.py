"""A dialect in a few lines, as it would stand in `haptera.dialects`: a line is the key of a get, the answer its value.

It knows the command interface and `transport`, and neither frames nor the parts of a node.
"""

from __future__ import annotations

import asyncio
from functools import partial

from haptera.errors import Failure
from haptera.node.commands import ANONYMOUS, Commands, Envelope, Result, operations
from haptera.transport import Listener, Pool, open_listener, parse

#: Bytes of one line: a key is no longer.
LINE_SIZE_MAX = 4096


class LineConnection(asyncio.Protocol):
    """One connection: it asks the store for each line that has come."""

    def __init__(self, commands: Commands, pool: Pool[LineConnection]) -> None:
        self._commands = commands
        self._pool = pool
        self._received = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a place in the pool."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._pool.admit(self):
            self._pool.established(self)  # there is no handshake

    def data_received(self, data: bytes) -> None:
        """Get the key of each whole line."""
        *lines, self._received = (self._received + data).split(b"\n")
        if len(self._received) > LINE_SIZE_MAX:
            self.end(b"! the line is too long\n")
            return
        commands = [Envelope(operations.Get(line.decode(errors="replace"))) for line in lines]
        self._commands.submit(ANONYMOUS, commands, self._answer)

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the pool."""
        self._pool.lost(self)

    def end(self, line: bytes) -> None:
        """Say a last line."""
        self._transport.write(line)
        self._transport.close()

    def _answer(self, results: list[Result]) -> None:
        self._transport.write(b"".join(map(_line, results)))


def _line(result: Result) -> bytes:
    if isinstance(result, Failure):
        return b"! %s\n" % result.name.encode()
    assert isinstance(result, tuple)
    return bytes(result[0]) + b"\n"


def _refuse(connection: LineConnection, limit: int | None, /, *, linger: bool) -> None:
    connection.end(b"! closed\n" if limit is None else b"! %d connections are enough\n" % limit)


async def listen_for_lines(url: str, commands: Commands, *, max_connections: int) -> Listener:
    """Serve the store at a URL."""
    pool: Pool[LineConnection] = Pool(_refuse, max_connections=max_connections)
    accept = partial(LineConnection, commands, pool)
    listener = await open_listener(parse(url), mode=0o600, group=None, accept=accept)
    await listener.start()
    return listener
