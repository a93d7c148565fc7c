"""A backup: the bytes of the whole store at one revision, piece by piece, as an asynchronous iterator."""

from __future__ import annotations

from haptera.client.calls.methods import BackedUp
from haptera.client.calls.streamed_answer import StreamedAnswer


class Backup(StreamedAnswer[bytes, BackedUp]):
    """The bytes of a backup in their order, in pieces of at most 256 KiB (spec/protocol.md, section 7.2).

    ``async for piece in db.backup()``. All pieces together are the backup; a part of them is none, and is refused when
    it is restored. A loop that is left early ends the backup at the server as soon as the object is dropped;
    ``async with db.backup() as pieces`` or `aclose` end it at a known place. May be iterated once.
    """

    __slots__ = ()

    async def __anext__(self) -> bytes:
        return await anext(self._parts)

    @property
    def index(self) -> int | None:
        """The index of the last entry of the log in the backup; None before the end."""
        return None if self._end.result is None else self._end.result.index

    @property
    def size(self) -> int | None:
        """The bytes of the backup; None before the end."""
        return None if self._end.result is None else self._end.result.size

    @property
    def master_key(self) -> str | None:
        """Where the node has the master key from, without which the backup cannot be restored; None before the end.

        ``generated`` is the key that the node has made itself: it lies beside the data and needs a copy elsewhere.
        """
        return None if self._end.result is None else self._end.result.master_key
