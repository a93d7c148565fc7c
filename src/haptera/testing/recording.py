"""The bytes that passed through a proxy or a link, kept to be looked at, altered or sent again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from haptera.transport import parse

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

__all__ = ["RECORDING_SIZE_MAX", "Piece", "Recording", "replay"]

#: Bytes that a recording keeps: far more than anyone reads, and no more than a test should hold.
RECORDING_SIZE_MAX: Final = 64 * 1024 * 1024


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """Bytes that were delivered at once: on which connection (1 is the first), when (seconds), which way."""

    connection: int
    time: float
    direction: Literal["to_acceptor", "to_dialer"]
    data: bytes


class Recording(msgspec.Struct):
    """Delivered bytes, in order. ``complete`` turns false when there was more than is kept (64 MiB)."""

    pieces: list[Piece] = []
    complete: bool = True
    size: int = 0

    def add(self, piece: Piece) -> None:
        """Keep a piece, if there is room."""
        if self.size + len(piece.data) > RECORDING_SIZE_MAX:
            self.complete = False
        if self.complete:
            self.pieces.append(piece)
            self.size += len(piece.data)

    def sent(self, direction: Literal["to_acceptor", "to_dialer"], connection: int = 1) -> bytes:
        """All bytes of one connection in one direction."""
        return b"".join(
            piece.data for piece in self.pieces if (piece.connection, piece.direction) == (connection, direction)
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the recording to a file."""
        Path(path).write_bytes(msgspec.msgpack.encode(self))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recording:
        """Read a file that `save` wrote. Raises ``ValueError`` for another file."""
        return msgspec.msgpack.decode(Path(path).read_bytes(), type=cls)


async def replay(
    recording: Recording,
    url: str,
    *,
    connection: int = 1,
    until: Callable[[bytes], bool] | None = None,
    timeout: float = 5.0,
) -> bytes:
    """Send the bytes of a recorded connection's dialer to ``url``, and return all that came back.

    A piece is sent when as many bytes have come as had come before it in the recording, or the other side has closed.
    It ends when ``until``, which is given all that came so far, is true (by default when as much came as was recorded),
    when the other side closes, or after ``timeout`` seconds. Raises ``OSError`` when it can't connect.
    """
    address = parse(url)
    pieces = [piece for piece in recording.pieces if piece.connection == connection]
    total = sum(len(piece.data) for piece in pieces if piece.direction == "to_dialer")
    received = bytearray()
    if address.path:
        reader, writer = await asyncio.open_unix_connection(address.path)
    else:
        reader, writer = await asyncio.open_connection(*address.hosts[0])

    async def receive(enough: Callable[[], bool]) -> None:
        while not enough():
            data = await reader.read(65536)
            if not data:
                return
            received.extend(data)

    def ended() -> bool:
        return len(received) >= total if until is None else until(bytes(received))

    try:
        async with asyncio.timeout(timeout):
            before = 0
            for piece in pieces:
                if piece.direction == "to_acceptor":
                    await receive(lambda least=before: len(received) >= least)  # type: ignore[misc]
                    writer.write(piece.data)
                else:
                    before += len(piece.data)
            await receive(ended)
    except (TimeoutError, ConnectionError):
        pass  # the bytes that came until then are the answer
    finally:
        writer.transport.abort()
    return bytes(received)
