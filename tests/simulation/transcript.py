"""The readable record of one simulated run: a line for each thing that happened, with its virtual time."""

from __future__ import annotations

import asyncio
from typing import Final

#: Characters of a value or an error that a line shows.
SHOWN: Final = 100


class Transcript:
    """Lines in the order of their time."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, actor: str, text: str) -> None:
        """Add a line: who, and what it did or met."""
        shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
        self.lines.append(f"{asyncio.get_running_loop().time():14.6f}  {actor:<10} {shown}")

    def text(self) -> str:
        """Return all lines."""
        return "".join(f"{line}\n" for line in self.lines)
