"""How many remembered answers a connection may have that it has not read: its share of its user's table.

Answers that are not read stay for ten minutes, so that a table of them which is full refuses everyone. A share is
therefore a part of the free places, a dynamic threshold (Choudhury and Hahne, 1998): a connection alone may have
thousands, and each that fills its share leaves eight times as much to the others. A part of the table is kept back
besides, because a share that was given cannot be taken back: from it each connection has a few answers, however many
others have filled theirs.

A connection that ends without saying which answers it has read leaves all of them to time. They count as taken.
"""

from __future__ import annotations

from collections import deque
from itertools import takewhile
from typing import TYPE_CHECKING, Final

from haptera.state import limits

if TYPE_CHECKING:
    from collections.abc import Container

    from haptera.node.commands import Submitter

#: The largest share. Eight times the changes that a connection may have under way by default, and a twelfth of its
#: user's table: a client that never says which answers it has read is refused alone.
#:
#: No budget is charged for the ids: each takes 150 bytes, so that a full share is 1.2 MB, and all ids of a user are 30
#: MB at most.
ANSWERS_PER_CONNECTION_MAX: Final = 8192

#: The places that are free and not kept back, divided by this, are the largest share.
PART_OF_FREE: Final = 8

#: A user's table divided by this is for small shares alone: 25,000 answers.
KEPT_BACK: Final = 4

#: The share of a connection in the places that are kept back. A client says which answers it has read after 8 answers
#: at the latest, so that this many let it go on.
SMALL_SHARE: Final = 16

#: A user's table divided by this is for shares of one answer alone: 12,500, and so one change at a time for each of the
#: 10,000 connections of a listener. 781 connections have small shares before it is touched.
KEPT_FOR_FIRST: Final = 8


def share_of(free: int) -> int:
    """The number of answers that one connection may have, its changes under way included, while its user has room for
    ``free`` more. At least one, because the state refuses changes to a table without room, in log order.
    """
    table = limits.ANSWERS_PER_USER_MAX
    if free <= table // KEPT_FOR_FIRST:
        return 1
    share = (free - table // KEPT_BACK) // PART_OF_FREE
    share = max(share, SMALL_SHARE)
    return min(share, ANSWERS_PER_CONNECTION_MAX)


class Share:
    """The remembered answers of one connection, in the order in which they were given.

    ``ids`` are the request ids of the ones that it may have forgotten, ``streams`` their streams, in two columns, so
    that a batch of them is added and taken in one step. ``resent`` are the ids of changes that may have come on another
    connection too: only time forgets them. ``under_way`` counts the changes that were admitted and have no result yet.
    `share_of` bounds all of them together.
    """

    __slots__ = ("ids", "resent", "streams", "submitter", "under_way")

    def __init__(self, submitter: Submitter) -> None:
        self.submitter: Submitter = submitter
        self.streams: deque[int] = deque()
        self.ids: deque[bytes] = deque()
        self.resent: deque[bytes] = deque()
        self.under_way: int = 0

    def __len__(self) -> int:
        """The ids that are kept."""
        return len(self.ids) + len(self.resent)

    def take_below(self, stream: int) -> list[bytes]:
        """Take out the ids from the beginning up to the first whose stream is not below ``stream``."""
        streams, ids = self.streams, self.ids
        count = len(list(takewhile(stream.__gt__, streams)))
        if count == len(ids):
            taken = list(ids)
            streams.clear()
            ids.clear()
            return taken
        for _ in range(count):
            streams.popleft()
        return [ids.popleft() for _ in range(count)]

    def drop_forgotten(self, remembered: Container[bytes]) -> None:
        """Take out the ids at the beginning whose answers are not remembered any more."""
        while self.ids and self.ids[0] not in remembered:
            self.ids.popleft()
            self.streams.popleft()
        while self.resent and self.resent[0] not in remembered:
            self.resent.popleft()
