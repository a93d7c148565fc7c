"""The channel of a database's calls: the seam between :class:`Database` and a connection or an embedded node."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from haptera.client.calls.methods import BackedUp, Method, Row, Scanned
    from haptera.client.channels.calls_under_way import UnderWay
    from haptera.client.watches.watched import Happened, WatchPosition
    from haptera.errors import Failure

R = TypeVar("R")


class StreamEnd(Generic[R]):
    """Filled in by a channel when a stream of items has been read to its end."""

    __slots__ = ("result",)

    def __init__(self) -> None:
        self.result: R | None = None


class Channel(Protocol):
    """Carries calls to a store.

    ``call`` answers with the method's result, or with a ``Failure`` that the server gave: a value, because a missing
    key is an everyday answer. It raises ``ConnectionLost``, ``DeadlineExceeded`` and ``RemoteProtocolError``.
    Times are seconds; None is no limit. A call for one server, ``server_id``, is sent to no other, and raises
    ``RevisionCompacted`` where another one answers now. A drain waits for the calls that are ``converting``: they have
    been made, and ``call`` is about to be called for them. ``reached`` and ``connected_once`` are as `Database`
    documents them. ``revision`` and ``server_id`` are of the last answer: right after a call, before any other wait, of
    that call's. ``sends_at_once`` says whether a call that is made now leaves in its first step, which then waits for
    nothing but its answer, and touches nothing of the task or the context that it runs in.
    """

    revision: int

    @property
    def converting(self) -> UnderWay: ...

    @property
    def server_id(self) -> bytes | None:
        """The server that has answered last."""

    @property
    def private(self) -> bool:
        """Whether strangers cannot read the calls: they go inside TLS, or do not leave this machine."""

    @property
    def sends_at_once(self) -> bool: ...

    @property
    def closed(self) -> bool:
        """Whether no more calls are taken."""

    @property
    def unclosed(self) -> bool:
        """Whether something is open that stays open until `aclose`: a connection, a node."""

    @property
    def reached(self) -> str | None: ...

    @property
    def connected_once(self) -> bool: ...

    async def call(
        self, method: Method[R], argument: tuple[Any, ...], timeout: float | None, server_id: bytes | None = None
    ) -> R | Failure: ...

    def scan(
        self, options: dict[str, Any], end: StreamEnd[Scanned], page_timeout: float | None, timeout: float | None
    ) -> AsyncGenerator[list[Row], None]: ...

    def backup(
        self, end: StreamEnd[BackedUp], piece_timeout: float | None, timeout: float | None
    ) -> AsyncGenerator[bytes, None]: ...

    def watch(self, position: WatchPosition, timeout: float | None) -> AsyncGenerator[list[Happened], None]: ...

    async def start(self) -> None: ...

    async def drain(self, timeout: float) -> None: ...

    async def aclose(self) -> None: ...
