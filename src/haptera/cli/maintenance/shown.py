"""The result of each command about maintenance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from haptera.cli import output
from haptera.cli.history import shown_time

if TYPE_CHECKING:
    from haptera.cli.client_command import Client
    from haptera.client import Maintenance


def show(client: Client, maintenance: Maintenance) -> None:
    """Write ``on``, with the time at which it began and the reason, or ``off``; fields of one line, with tabs."""
    text = f"on\t{_time(maintenance.since_ms)}\t{output.shown(maintenance.reason)}" if maintenance.on else "off"
    client.show(msgspec.to_builtins(maintenance), text)


def _time(time_ms: int | None) -> str:
    try:
        return shown_time(None if time_ms is None else time_ms / 1000)
    except (OverflowError, ValueError, OSError):  # a node may send anything
        return str(time_ms)
