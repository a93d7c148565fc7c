"""Lines that come while a prompt waits: they are printed above it, and the prompt with its text is drawn again."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from prompt_toolkit.application import run_in_terminal

if TYPE_CHECKING:
    from collections.abc import Callable

#: Lines that wait until the prompt is drawn again. Of a flood the newest ones are shown, because the terminal scrolls
#: older ones away, and the prompt is to stay of use.
LINES_MAX: Final = 1000


class AbovePrompt:
    """Prints lines above the prompt while one is shown (``prompting`` says so), and at once while none is."""

    def __init__(self, prompting: Callable[[], bool]) -> None:
        self._prompting = prompting
        self._waiting: deque[bytes] = deque()
        self._left_out = 0
        self._printing: asyncio.Task[Any] | None = None

    def write(self, data: bytes) -> None:
        """Take a line with its end."""
        self._waiting.append(data)
        if not self._prompting():
            self.print()
            return
        if len(self._waiting) > LINES_MAX:
            self._waiting.popleft()
            self._left_out += 1
        if self._printing is None or self._printing.done():
            self._printing = asyncio.ensure_future(self._print_above())

    def flush(self) -> None:
        """Nothing waits for this."""

    async def _print_above(self) -> None:
        while self._waiting:  # a line may come after the others are printed and before this task is done
            await run_in_terminal(self.print)

    def print(self) -> None:
        """Print the lines that wait."""
        if self._left_out:
            self._waiting.appendleft(f"… {self._left_out:,} lines were left out\n".encode())
            self._left_out = 0
        if not self._waiting:
            return
        data = b"".join(self._waiting)
        self._waiting.clear()
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
