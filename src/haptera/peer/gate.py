"""The gate before the services of one connection, until an identity is proved (spec/protocol.md, section 5.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from haptera.peer.request import Request


class Gate(Protocol):
    """Judges the requests that arrive before that."""

    def sort(self, arrived: list[Request]) -> None:
        """Take out of the list the requests that are answered now; the others are kept until the gate is opened."""
