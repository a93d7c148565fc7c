"""The lines that a node and its snapshot process exchange: JSON, one object a line.

The node writes one `Order` to the process's standard input and keeps that pipe open. The process writes `FurtherOn`
while it works, and in the end `Made` or `Failed`, to its standard output. No key of encryption is in an argument or in
the environment, which other programs can read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from haptera.errors import CorruptionError, HapteraError
from haptera.storage import DiskFull, LogPoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: Bytes of a line. An order has the keys of the data, of 100 bytes each, and a message has a few paths.
LINE_SIZE_MAX: Final = 1024 * 1024


class Order(msgspec.Struct, frozen=True):
    """Make a snapshot that stands at ``point``.

    ``keys`` are the data keys, in hex, and ``parent`` is the node's process id. The events in it take at most
    ``events_size`` bytes.
    """

    parent: int
    keys: list[str]
    point: LogPoint
    events_size: int


class FurtherOn(msgspec.Struct, frozen=True, tag_field="event", tag="progress"):
    """The process is alive and has got further."""


class Made(msgspec.Struct, frozen=True, tag_field="event", tag="made"):
    """The snapshot is whole, durable and the current one.

    ``index``, ``time_ms`` and ``next_segment`` are those of its place in the log, ``revision`` and ``keys`` those of
    its state. ``size_bytes`` is the file's size, ``seconds`` the time that it took, ``memory_bytes`` the most memory
    that the process had. ``damaged`` are the indexes of the older snapshots that it found damaged.
    """

    index: int
    revision: int
    time_ms: int
    next_segment: int
    keys: int
    size_bytes: int
    seconds: float
    memory_bytes: int
    damaged: tuple[int, ...] = ()


class Failed(msgspec.Struct, frozen=True, tag_field="event", tag="failed"):
    """The snapshot could not be made, and nothing of it is left.

    ``kind`` is the name of the error's class. ``damaged`` are the indexes of the older snapshots that were found
    damaged. The damage of another file has ``file``, ``offset``, ``expected`` and ``actual``. ``shortage`` is the errno
    of a `haptera.storage.DiskFull`.
    """

    kind: str
    message: str
    damaged: tuple[int, ...] = ()
    file: str | None = None
    offset: int | None = None
    expected: str | None = None
    actual: str | None = None
    shortage: int | None = None


Message = FurtherOn | Made | Failed

encode: Final = msgspec.json.Encoder().encode
decode_order: Final[Callable[[bytes], Order]] = msgspec.json.Decoder(Order).decode
decode_message: Final[Callable[[bytes], Message]] = msgspec.json.Decoder(Message).decode


def failure_of(error: Exception, damaged: Iterable[int]) -> Failed:
    """The message for an error, and for the older snapshots that were found damaged before it."""
    kind, text = type(error).__name__, str(error)
    found = tuple(damaged)
    if isinstance(error, CorruptionError):
        return Failed(kind, text, found, error.file, error.offset, str(error.expected), str(error.actual))
    shortage = error.number if isinstance(error, DiskFull) else None
    return Failed(kind, text if isinstance(error, HapteraError) else f"{kind}: {text}", found, shortage=shortage)
