"""The end of a block of ``async with`` by the loss of what it relies on: its task is cancelled, and told why.

The loop cancels the task between two steps of it. So the task is at an ``await`` of the block, which meets the
cancellation. One that a task is given in its own step is met by its next ``await``, which may lie behind the block.
"""

from __future__ import annotations

import asyncio


class Interruption:
    """May end the block that the present task enters now."""

    __slots__ = ("_body", "_cancelled", "_cancelling", "_interrupting")

    def __init__(self) -> None:
        body = asyncio.current_task()
        assert body is not None
        self._body: asyncio.Task[object] = body
        self._cancelling = body.cancelling()
        self._interrupting: asyncio.Handle | None = None
        self._cancelled = False

    def interrupt(self) -> None:
        """Cancel the block with the next turn of the loop, unless it has ended by then."""
        if self._interrupting is None:
            self._interrupting = self._body.get_loop().call_soon(self._cancel)

    def ends(self, kind: type[BaseException] | None) -> bool:
        """Whether nothing but the interruption, if there was one, ends the block, which ends with an error of ``kind``.

        The task is not cancelled any more then, unless others have cancelled it, too.
        """
        if self._interrupting is not None:
            self._interrupting.cancel()
        if not self._cancelled:
            return kind is None
        others = self._body.uncancel() > self._cancelling
        return kind is None or (kind is asyncio.CancelledError and not others)

    def _cancel(self) -> None:
        self._cancelled = True
        self._body.cancel()
