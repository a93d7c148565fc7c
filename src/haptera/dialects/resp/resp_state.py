"""The connections of one listener that speak RESP, and what they share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haptera.dialects.resp.change_feed import DecodedItems
from haptera.dialects.resp.key_lines import KeyLines
from haptera.dialects.resp.scan_positions import ScanPositions
from haptera.dialects.resp.subscriptions import SubscriberCounts

if TYPE_CHECKING:
    from haptera.dialects.resp.resp_session import RespSession


class RespState:
    """Shared by the connections of one listener: ``sessions`` by the number of the connection, and the positions of
    scans, which may go on at another connection. ``port`` is that of the listener's URL, 0 for a Unix socket, and
    ``debug`` says whether it takes DEBUG.
    """

    def __init__(self, port: int = 0, *, debug: bool = False) -> None:
        self.port = port
        self.debug = debug
        self.sessions: dict[int, RespSession] = {}
        self.positions = ScanPositions()
        #: Changes that are judged by what they read, in line.
        self.lines = KeyLines()
        #: The changes that were told last, and the channels that are subscribed to.
        self.items = DecodedItems()
        self.subscribers = SubscriberCounts()
