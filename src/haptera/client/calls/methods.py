"""A method of a service as the client calls it, and the shapes of answers (spec/protocol.md, section 7).

A result is decoded into a struct whose fields are checked while it is decoded: a value of another type than the
annotation says cannot reach the caller. Fields that a later version adds at the end are ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta

from haptera.errors import Code, RemoteProtocolError
from haptera.key_rules import VERSION_MAX

R = TypeVar("R")

Revision = Annotated[int, Meta(ge=0, le=VERSION_MAX)]
Count = Annotated[int, Meta(ge=0)]
Milliseconds = Annotated[int, Meta(ge=0)]


#: The values of metrics by name.
Metrics = dict[str, int | float]


class Found(msgspec.Struct, array_like=True, frozen=True, gc=False):
    value: bytes
    version: Revision
    expires_at_ms: Milliseconds | None = None


class Stored(msgspec.Struct, array_like=True, frozen=True):
    version: Revision
    previous: Found | None = None


class Deleted(msgspec.Struct, array_like=True, frozen=True):
    deleted: bool
    version: Revision | None = None
    previous: Found | None = None


class Existing(msgspec.Struct, array_like=True, frozen=True):
    exists: bool


class FoundMany(msgspec.Struct, array_like=True, frozen=True):
    entries: list[Found | None]


class Taken(msgspec.Struct, array_like=True, frozen=True):
    """An entry that was deleted, and the version of that change."""

    value: bytes
    version: Revision
    expires_at_ms: Milliseconds | None
    deleted_at: Revision


class TimeLeft(msgspec.Struct, array_like=True, frozen=True):
    ttl_ms: Milliseconds | None


class Written(msgspec.Struct, array_like=True, frozen=True):
    version: Revision


class Removed(msgspec.Struct, array_like=True, frozen=True):
    count: Count
    version: Revision | None = None


class Incremented(msgspec.Struct, array_like=True, frozen=True):
    value: int
    version: Revision


class Transacted(msgspec.Struct, array_like=True, frozen=True):
    succeeded: bool
    version: Revision | None
    results: list[Any]


class Counted(msgspec.Struct, array_like=True, frozen=True):
    count: Count


class Row(msgspec.Struct, array_like=True, frozen=True, gc=False):
    key: str
    value: bytes | None
    version: Revision
    expires_at_ms: Milliseconds | None = None


class Scanned(msgspec.Struct, array_like=True, frozen=True):
    count: Count
    last_key: str | None
    revision: Revision


class BackedUp(msgspec.Struct, frozen=True):
    index: Count
    revision: Revision
    size: Count
    master_key: str


class SnapshotMade(msgspec.Struct, frozen=True):
    """A snapshot that is the current one. ``seconds`` is 0 where it was there already."""

    index: Count
    revision: Revision
    bytes: Count
    seconds: float


class Maintenance(msgspec.Struct, frozen=True):
    """Whether the store refuses changes (``on``), why, and since when, in Unix milliseconds. Where it takes them, the
    reason is empty and the time None.
    """

    on: bool
    reason: str
    since_ms: Milliseconds | None


class Method(Generic[R]):
    """One method of a service, with the name of the attribute that holds it; ``write`` says whether it is a change, and
    ``of_one_key`` whether it may be an operation of a transact.

    ``decode`` reads a payload of the wire, ``convert`` the tuple that an embedded node answers with. Both raise
    ``msgspec.MsgspecError`` for a result of another shape. The decoder is made with the first answer: a program uses
    few of the methods, and to make all decoders takes a twentieth of the import.
    """

    __slots__ = ("_result", "convert", "decode", "name", "of_one_key", "service", "write")

    def __init__(self, result: type[R], *, write: bool = False, of_one_key: bool = False, service: str = "kv") -> None:
        self.service: str = service
        self.name: str = ""
        self.write: bool = write
        self.of_one_key: bool = of_one_key
        self._result = result
        self.decode: Callable[[bytes], R] = self._decode_first
        self.convert: Callable[[Any], R] = lambda answer: msgspec.convert(answer, result)

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def _decode_first(self, payload: bytes) -> R:
        """Make the decoder, which takes the place of this, and decode with it."""
        self.decode = msgspec.msgpack.Decoder(self._result).decode
        return self.decode(payload)

    def __repr__(self) -> str:
        return f"<Method {self.service}.{self.name}>"


class ServerMethods:
    """The methods of the service ``server``."""

    status: Method[dict[str, Any]] = Method(dict[str, Any], service="server")
    metrics: Method[Metrics] = Method(Metrics, service="server")
    backup: Method[BackedUp] = Method(BackedUp, service="server")
    snapshot: Method[SnapshotMade] = Method(SnapshotMade, service="server")
    maintenance: Method[Maintenance] = Method(Maintenance, service="server")


#: Reads one ITEM of a scan: some rows, in key order.
decode_page: Callable[[bytes], list[Row]] = msgspec.msgpack.Decoder(list[Row]).decode


def malformed(method: Method[Any], error: Exception) -> RemoteProtocolError:
    """Return the error of an answer to ``method`` that this side cannot decode."""
    name = f"{method.service}.{method.name}"
    return RemoteProtocolError(Code.MALFORMED_FRAME, f"the server's answer to {name} is malformed: {error}")
