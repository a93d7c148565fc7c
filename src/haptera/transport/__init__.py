"""Byte streams under asyncio: addresses, sockets, listening, accepting, refusing, dialling.

It knows no frames: its user writes the bytes of a connection, a refusal included.
"""

from __future__ import annotations

from haptera.transport.address import (
    TCP_SCHEME,
    UNIX_SCHEME,
    Address,
    Place,
    format_place,
    is_loopback,
    parse,
    redact,
    url_of,
)
from haptera.transport.bind_sockets import check_free, group_id, reason_of, remove_socket
from haptera.transport.connection_pool import Pool, Refuse
from haptera.transport.dialling import connect_first
from haptera.transport.limits import (
    ACCEPTED_PER_TURN,
    CONNECTIONS_MAX,
    HALF_OPEN_MAX,
    SOCKET_PATH_MAX,
    leaving_max,
)
from haptera.transport.listener import Listener, open_listener
from haptera.transport.loop_network import Accept, BoundSockets, LoopNetwork, attach
from haptera.transport.loop_ownership import Home, running_loop, wrong_loop
from haptera.transport.sockets import gathers, let_go, tune, untaken
from haptera.transport.unclosed import warn_unclosed

__all__ = [
    "ACCEPTED_PER_TURN",
    "CONNECTIONS_MAX",
    "HALF_OPEN_MAX",
    "SOCKET_PATH_MAX",
    "TCP_SCHEME",
    "UNIX_SCHEME",
    "Accept",
    "Address",
    "BoundSockets",
    "Home",
    "Listener",
    "LoopNetwork",
    "Place",
    "Pool",
    "Refuse",
    "attach",
    "check_free",
    "connect_first",
    "format_place",
    "gathers",
    "group_id",
    "is_loopback",
    "leaving_max",
    "let_go",
    "open_listener",
    "parse",
    "reason_of",
    "redact",
    "remove_socket",
    "running_loop",
    "tune",
    "untaken",
    "url_of",
    "warn_unclosed",
    "wrong_loop",
]
