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
    READ_SIZE_MAX,
    SOCKET_PATH_MAX,
    TLS_HANDSHAKE_S,
    TLS_LOOK_S,
    leaving_max,
)
from haptera.transport.listener import Listener, open_listener
from haptera.transport.loop_network import Accept, BoundSockets, LoopNetwork, attach
from haptera.transport.loop_ownership import Home, running_loop, wrong_loop
from haptera.transport.read_buffer import read_into_place
from haptera.transport.secret_files import (
    SECRET_FILE_SIZE_MAX,
    read_file,
    read_secret_file,
    unusable,
    warn_of_mode,
)
from haptera.transport.sockets import gathers, is_near, let_go, tune, untaken
from haptera.transport.tls_context import TLS_VERSION_DEFAULT, TlsContext, TlsFiles, load_context, signature_of
from haptera.transport.tls_keeper import TlsKeeper, context_to_dial
from haptera.transport.tls_options import TLS_OPTIONS, check_tls_option, read_tls_files
from haptera.transport.tls_transport import Foreign, TlsFailed, TlsSession, TlsTransport
from haptera.transport.unclosed import warn_unclosed

__all__ = [
    "ACCEPTED_PER_TURN",
    "CONNECTIONS_MAX",
    "HALF_OPEN_MAX",
    "READ_SIZE_MAX",
    "SECRET_FILE_SIZE_MAX",
    "SOCKET_PATH_MAX",
    "TCP_SCHEME",
    "TLS_HANDSHAKE_S",
    "TLS_LOOK_S",
    "TLS_OPTIONS",
    "TLS_VERSION_DEFAULT",
    "UNIX_SCHEME",
    "Accept",
    "Address",
    "BoundSockets",
    "Foreign",
    "Home",
    "Listener",
    "LoopNetwork",
    "Place",
    "Pool",
    "Refuse",
    "TlsContext",
    "TlsFailed",
    "TlsFiles",
    "TlsKeeper",
    "TlsSession",
    "TlsTransport",
    "attach",
    "check_free",
    "check_tls_option",
    "connect_first",
    "context_to_dial",
    "format_place",
    "gathers",
    "group_id",
    "is_loopback",
    "is_near",
    "leaving_max",
    "let_go",
    "load_context",
    "open_listener",
    "parse",
    "read_file",
    "read_into_place",
    "read_secret_file",
    "read_tls_files",
    "reason_of",
    "redact",
    "remove_socket",
    "running_loop",
    "signature_of",
    "tune",
    "untaken",
    "unusable",
    "url_of",
    "warn_of_mode",
    "warn_unclosed",
    "wrong_loop",
]
