"""Frames to events: the sans-IO state machine of one connection.

``Connection`` takes bytes, commands and the time, and gives events and bytes; it never touches a socket or a clock.
``spec/protocol.md``, sections 3, 4 and 8, is the contract that it implements.
"""

from __future__ import annotations

from haptera.connection.bounds import BOUNDS, BUDGET, Bound, check_keywords, seconds
from haptera.connection.config import (
    AUTHENTICATE,
    AUTHENTICATION_TIMEOUT_S,
    CONNECTION_BUDGET,
    FRAME_TIMEOUT_S,
    HANDSHAKE_TIMEOUT_S,
    HELD_MIN,
    IDLE_FRAMES_BURST,
    IDLE_FRAMES_PER_S,
    MESSAGE_SHARE_MAX,
    MESSAGE_TIMEOUT_S,
    PRESHARED_KEY,
    PROCESS_BUDGET,
    SESSION_SERVICE,
    Budget,
    Config,
    Role,
)
from haptera.connection.connection import Connection, beginning_of, guard_of
from haptera.connection.events import (
    CallFailed,
    CancelReceived,
    Closed,
    ErrorReceived,
    Established,
    Event,
    GoawayReceived,
    ItemReceived,
    PackedItem,
    RequestAborted,
    RequestFinished,
    RequestReceived,
    ResponseReceived,
)
from haptera.connection.handshake import Agreement
from haptera.connection.outbox import Outbox

__all__ = [
    "AUTHENTICATE",
    "AUTHENTICATION_TIMEOUT_S",
    "BOUNDS",
    "BUDGET",
    "CONNECTION_BUDGET",
    "FRAME_TIMEOUT_S",
    "HANDSHAKE_TIMEOUT_S",
    "HELD_MIN",
    "IDLE_FRAMES_BURST",
    "IDLE_FRAMES_PER_S",
    "MESSAGE_SHARE_MAX",
    "MESSAGE_TIMEOUT_S",
    "PRESHARED_KEY",
    "PROCESS_BUDGET",
    "SESSION_SERVICE",
    "Agreement",
    "Bound",
    "Budget",
    "CallFailed",
    "CancelReceived",
    "Closed",
    "Config",
    "Connection",
    "ErrorReceived",
    "Established",
    "Event",
    "GoawayReceived",
    "ItemReceived",
    "Outbox",
    "PackedItem",
    "RequestAborted",
    "RequestFinished",
    "RequestReceived",
    "ResponseReceived",
    "Role",
    "beginning_of",
    "check_keywords",
    "guard_of",
    "seconds",
]
