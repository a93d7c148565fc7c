"""A dialect in a few lines, as it would stand in `haptera.dialects`: a line is the key of a get, the answer its value.

A line ``login NAME PASSWORD`` logs in. It knows the node through its two faces for dialects, and neither frames nor the
parts of a node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from haptera.errors import Failure
from haptera.node.commands import Envelope, operations

if TYPE_CHECKING:
    import asyncio

    from haptera.node.commands import Result
    from haptera.node.frontend import FrontendConnection
    from haptera.transport import Address

#: Bytes of one line: a key is no longer.
LINE_SIZE_MAX = 4096


class Lines:
    """The dialect. It has a port of another one, because the ports of all are listed."""

    protocol = "resp"
    options = frozenset({"greeting"})

    def settings(self, address: Address) -> str:
        """The line that each connection begins with."""
        return address.options.get("greeting", "")

    def is_signed(self, settings: str) -> bool:
        """No key proves a line."""
        return False

    def session(self, connection: FrontendConnection, settings: str) -> LineSession:
        """A connection with its greeting."""
        return LineSession(connection, settings)


class LineSession:
    """One connection: it asks the store for each line that has come."""

    def __init__(self, connection: FrontendConnection, greeting: str) -> None:
        self._connection = connection
        self._received = b""
        self._waiting: list[bytes] = []
        self._stopped = False
        if greeting:
            connection.write(greeting.encode() + b"\n")

    def receive(self, data: bytes) -> None:
        """Get the key of each whole line."""
        *lines, self._received = (self._received + data).split(b"\n")
        if len(self._received) > LINE_SIZE_MAX:
            self._connection.write(b"! the line is too long\n")
            self._connection.close()
            return
        self._connection.expect(1 if self._received else None)
        self._waiting += lines
        self._work()

    def _work(self) -> None:
        while self._waiting and not self._connection.full and not self._stopped:
            line = self._waiting.pop(0)
            if line.startswith(b"login "):
                _, name, password = line.decode().split()
                self._connection.caller.authenticate(name, password).add_done_callback(self._logged_in)
                continue
            self._connection.caller.submit([Envelope(operations.Get(line.decode(errors="replace")))], self._answer)
        if self._waiting:
            self._connection.pause_reading()
        elif not self._connection.charge(len(self._received)):
            self._connection.abort()
        else:
            self._connection.resume_reading()

    def _logged_in(self, done: asyncio.Future[Failure | None]) -> None:
        if not done.cancelled():
            failed = done.result()
            self._connection.write(b"welcome\n" if failed is None else b"! %s\n" % failed.name.encode())

    def _answer(self, results: list[Result]) -> None:
        for result in results:
            self._connection.write(_line(result))

    def resume(self) -> None:
        """Go on."""
        self._work()

    def refusal(self, reason: Failure) -> bytes:
        """The name of the reason."""
        return b"! %s\n" % reason.name.encode()

    def stop(self) -> None:
        """There is nothing under way."""
        self._stopped = True
        self._connection.close()

    def lost(self) -> None:
        """There is nothing to take back."""


def _line(result: Any) -> bytes:
    if isinstance(result, Failure):
        return b"! %s\n" % result.name.encode()
    assert isinstance(result, tuple)
    return bytes(result[0]) + b"\n"
