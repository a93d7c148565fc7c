"""A Redis client of the tests' own: it sends exactly the bytes it is told, and keeps each reply with its RESP type.

It shares no code with the dialect. Libraries for Redis turn replies into what their users like to see, and so hide
whether a nil was a null bulk string or a null array.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Seconds that a reply may take. A test fails behind them, with the command that got none.
REPLY_SECONDS_MAX = 20.0

#: A command's words.
Words = tuple[bytes, ...]


def pack(words: Sequence[bytes]) -> bytes:
    """A command in the form that clients send: an array of bulk strings."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def words(line: str | bytes) -> Words:
    """The words of a command that is written as a line."""
    return tuple((line.encode() if isinstance(line, str) else line).split())


class RedisWire:
    """One connection to an address: (host, port), or the path of a Unix socket. Its calls block."""

    def __init__(self, address: tuple[str, int] | str) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.settimeout(REPLY_SECONDS_MAX)
        self._socket.connect(address)
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> RedisWire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._file.close()
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._socket.sendall(data)

    def ask(self, *commands: Sequence[bytes] | str) -> list[Any]:
        """Send commands in one write, and return their replies."""
        all_words = [words(each) if isinstance(each, str) else each for each in commands]
        self.send(b"".join(map(pack, all_words)))
        return [self.reply() for _ in all_words]

    def one(self, command: Sequence[bytes] | str) -> Any:
        """Send one command, and return its reply."""
        return self.ask(command)[0]

    def reply(self) -> Any:
        """Read one reply: (type, value), where the type is the byte that it begins with.

        The elements of an aggregate are replies again. Raises EOFError where the other side has closed.
        """
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise EOFError(line)
        kind, rest = chr(line[0]), line[1:-2]
        match kind:
            case "+" | "-" | ":" | "," | "#" | "(" | "_":
                return kind, rest
            case "$" | "=" | "!":
                return kind, None if rest == b"-1" else self._bulk(int(rest))
            case "*" | "~" | ">":
                return kind, None if rest == b"-1" else [self.reply() for _ in range(int(rest))]
            case "%":
                return kind, [(self.reply(), self.reply()) for _ in range(int(rest))]
            case _:
                raise AssertionError(f"no reply begins with {line!r}")

    def _bulk(self, size: int) -> bytes:
        data = self._file.read(size + 2)
        if len(data) < size + 2:
            raise EOFError(data)
        assert data.endswith(b"\r\n")
        return data[:-2]


def plain(reply: Any) -> Any:
    """A reply without its types: bytes, None, lists, and dictionaries of maps."""
    kind, value = reply
    match kind:
        case "*" | "~" | ">":
            return None if value is None else [plain(each) for each in value]
        case "%":
            return {plain(key): plain(each) for key, each in value}
        case "_":
            return None
        case ":":
            return int(value)
        case _:
            return value
