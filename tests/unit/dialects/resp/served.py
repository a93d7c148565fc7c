"""A node that serves RESP on a socket, and connections to it that keep each reply as it came."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from haptera.client import connect
from haptera.testing import node
from tests.unit.dialects.resp.talks import command

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from haptera.testing import NodeUrl

PASSWORD = "correct horse battery staple"


class Wire:
    """A connection of a test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self._writer.write(data)

    async def do(self, *arguments: bytes | str | int) -> bytes:
        """Send a command, and return the bytes of its reply."""
        self.send(command(*arguments))
        return await asyncio.wait_for(self.reply(), 20)

    async def reply(self) -> bytes:
        """The bytes of the next reply; none where the other side has closed."""
        line = await self._reader.readline()
        kind, rest = line[:1], line[1:-2]
        if not line:
            return line
        if kind in b"$=" and rest != b"-1":
            return line + await self._reader.readexactly(int(rest) + 2)
        if kind in b"*~>%" and rest != b"-1":
            count = int(rest) * (2 if kind == b"%" else 1)
            return line + b"".join([await self.reply() for _ in range(count)])
        return line

    async def text(self, *arguments: bytes | str | int) -> str:
        """Send a command, and return the text of the bulk string that it gives."""
        return (await self.do(*arguments)).partition(b"\r\n")[2].decode().removesuffix("\r\n")

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()


class Served:
    """A node that serves RESP: ``wire`` makes connections to it, which are closed with it."""

    def __init__(self, url: NodeUrl) -> None:
        self.url = url
        self._port = int(url.rpartition(":")[2].partition("?")[0])
        self._wires: list[Wire] = []

    async def wire(self, *login: str) -> Wire:
        """Make a connection, which logs in as a user with a password where they are given."""
        wire = Wire(*await asyncio.open_connection("127.0.0.1", self._port))
        self._wires.append(wire)
        if login:
            assert await wire.do("AUTH", *login) == b"+OK\r\n"
        return wire

    async def add_user(self, name: str, *permissions: str, keys: str = "*") -> None:
        """Make a user with these permissions, and with PASSWORD."""
        async with connect(f"haptera+unix://{quote(self.url.node.local_socket_path)}") as db:
            await db.admin.add_role(name)
            if permissions:
                await db.admin.add_grant(name, list(permissions), keys)
            await db.admin.add_user(name, PASSWORD, roles=[name])

    def close(self) -> None:
        """Close the connections."""
        for wire in self._wires:
            wire.close()


@asynccontextmanager
async def served(options: str = "", **config: Any) -> AsyncIterator[Served]:
    """A node in memory that serves RESP, with ``options`` in the URL of the listener."""
    async with node(storage="memory", listen=f"resp://127.0.0.1:0{options}", **config) as url:
        found = Served(url)
        try:
            yield found
        finally:
            found.close()


def with_users(**config: Any) -> Any:
    """The same with authentication."""
    return served(no_auth=False, admin_password=PASSWORD, **config)
