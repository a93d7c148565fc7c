"""The end of a block of ``async with`` by the loss of what it relies on: its task is cancelled, and told why."""

from __future__ import annotations

import asyncio


class Interruption:
    """May end the block that the present task enters now."""

    __slots__ = ("_body", "_cancelling", "_interrupted")

    def __init__(self) -> None:
        body = asyncio.current_task()
        assert body is not None
        self._body: asyncio.Task[object] = body
        self._cancelling = body.cancelling()
        self._interrupted = False

    def interrupt(self) -> None:
        """Cancel the block, unless that has happened."""
        if not self._interrupted:
            self._interrupted = True
            self._body.cancel()

    def ends(self, kind: type[BaseException] | None) -> bool:
        """Whether nothing but the interruption, if there was one, ends the block, which ends with an error of ``kind``.

        The task is not cancelled any more then, unless others have cancelled it, too.
        """
        if not self._interrupted:
            return kind is None
        others = self._body.uncancel() > self._cancelling
        return kind is None or (kind is asyncio.CancelledError and not others)
