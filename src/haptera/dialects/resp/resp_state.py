"""The connections of a node that speak RESP, and what they share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from haptera.dialects.resp.change_feed import DecodedItems
from haptera.dialects.resp.key_lines import KeyLines
from haptera.dialects.resp.scan_positions import ScanPositions
from haptera.dialects.resp.subscriptions import SubscriberCounts

if TYPE_CHECKING:
    from haptera.dialects.resp.resp_session import RespSession


class RespListener(NamedTuple):
    """A listener: ``port`` is that of its URL, 0 for a Unix socket, and ``debug`` says whether it takes DEBUG."""

    port: int = 0
    debug: bool = False


#: A listener that has no options.
PLAIN_LISTENER: Final = RespListener()


class RespState:
    """Shared by the connections of all listeners of a node: ``sessions`` by the number of the connection, and the
    positions of scans, which may go on at another connection.
    """

    def __init__(self) -> None:
        self.sessions: dict[int, RespSession] = {}
        self.positions: ScanPositions = ScanPositions()
        #: Changes that are judged by what they read, in line.
        self.lines: KeyLines = KeyLines()
        #: The changes that were told last, and the channels that are subscribed to.
        self.items: DecodedItems = DecodedItems()
        self.subscribers: SubscriberCounts = SubscriberCounts()
