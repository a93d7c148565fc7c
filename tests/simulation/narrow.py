"""Nodes and clients with little room: windows that a few events fill, ITEMs of one event or two, a history of some ten
changes. So watches fall behind, are sent a revision in parts, and are overtaken by the end of the history.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final
from unittest.mock import patch

from haptera import client
from haptera.kv_groups import KV_GROUPS
from haptera.node import recovery
from haptera.node.watches import items
from haptera.peer import dial_address
from haptera.state import EventBounds, event_history
from haptera.wire import LIMITS, Limits

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

#: Events of a block of the history, and those that are kept.
BLOCK_EVENTS: Final = 2
EVENTS_MAX: Final = (6, 12, 40)
#: Bytes of an ITEM: one with a large value is larger.
ITEM_SIZE: Final = 200


@contextmanager
def narrow(choices: random.Random) -> Iterator[None]:
    """Have the nodes and clients that are made in the block so little room."""
    bounds = EventBounds(events=choices.choice(EVENTS_MAX))
    windows = Limits(
        stream_window=LIMITS["stream_window"].minimum, connection_window=LIMITS["connection_window"].minimum
    )
    with ExitStack() as stack:
        stack.enter_context(patch.object(event_history, "BLOCK_EVENTS", BLOCK_EVENTS))
        stack.enter_context(patch.object(recovery, "EventBounds", lambda *_: bounds))
        stack.enter_context(patch.object(items, "ITEM_SIZE_MAX", ITEM_SIZE))
        dial_narrow = partial(dial_address, groups=KV_GROUPS, limits=windows)
        stack.enter_context(patch.object(client, "dial_store", dial_narrow))
        yield
