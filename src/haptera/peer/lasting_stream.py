"""The items of a call on a peer that comes back."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from typing import TYPE_CHECKING

from haptera.errors import ConnectionLost, ServerError

if TYPE_CHECKING:
    from types import TracebackType

    from haptera.peer.call import Answer, CallStream
    from haptera.peer.kept_connection import KeptConnection
    from haptera.peer.peer import Peer


class LastingStream:
    """The items of a call's answer, as they come. ``LastingPeer.stream`` makes it.

    Iterate over it with ``async for``, in one task. It is begun again on another connection until its first item has
    come, where the other side has certainly not begun it. Leaving early cancels the call, with ``async with`` or
    ``aclose``.
    """

    def __init__(
        self,
        keeper: KeptConnection,
        request: tuple[str, str, bytes],
        items: AsyncIterable[bytes] | None,
        deadline: float | None,
    ) -> None:
        self._keeper = keeper
        self._request = request
        self._items = items
        self._deadline = deadline
        self._stream: CallStream | None = None
        self._peer: Peer | None = None  # the connection that it is on
        self._begun = False  # whether an item has come
        self._attempt = 0
        self._left = False
        if keeper.peer is not None:
            self._begin(keeper.peer)

    @property
    def answer(self) -> Answer | None:
        """The terminal answer, once the items have ended."""
        return None if self._stream is None else self._stream.answer

    def _begin(self, peer: Peer) -> CallStream:
        service, method, payload = self._request
        left = self._keeper.left(self._deadline)
        self._peer = peer
        self._stream = peer.stream(service, method, payload, items=self._items, timeout=left)
        return self._stream

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self._left:
            stream = self._stream or self._begin(await self._keeper.connection(self._deadline))
            peer = self._peer
            assert peer is not None
            try:
                item = await anext(stream)
            except (ConnectionLost, ServerError) as error:
                again = not self._begun and self._items is None
                if not self._keeper.passes(peer, error, again=again):
                    raise
                self._stream = None
                self._attempt += 1
                await self._keeper.pause(self._attempt, self._deadline)
            else:
                self._begun = True
                return item
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Cancel the call if it has not ended."""
        self._left = True
        if self._stream is not None:
            await self._stream.aclose()

    async def __aenter__(self) -> LastingStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
