"""The bounds of listening and dialling, each with its reason."""

from __future__ import annotations

from typing import Final

#: An undecided attempt to connect is joined by the next one after this time: RFC 8305 recommends it, and it is more
#: than a round trip on almost every path.
ATTEMPT_DELAY_S: Final = 0.25
#: Addresses of one name that are listened on or dialled. A sound name has fewer; a hostile resolver gives more.
ADDRESSES_MAX: Final = 16
#: Names that a loop has looked up at once; further ones wait for one of these. Each takes a thread, for half a minute
#: where the resolver does not answer. A program knows fewer servers, and a process may have thousands of threads.
LOOKUPS_MAX: Final = 64
#: Bytes of a Unix socket's path: ``sun_path`` holds 108 on Linux, with a NUL. Where it holds fewer, binding fails.
SOCKET_PATH_MAX: Final = 107
#: Connections of one listener. Each costs some 12 KiB and a file descriptor, and with TLS 30 KiB more.
CONNECTIONS_MAX: Final = 10_000
#: Connections whose handshake is not done: room for thousands of clients that start at one instant and share a few
#: busy processors, and 64 KiB each at most. Never more than half of a listener's connections, because silent ones
#: would otherwise fill a small listener and keep all others out.
HALF_OPEN_MAX: Final = 4096
#: Refused connections that have a second to read why: 256, or a quarter of a listener's connections where that is
#: fewer, but at least 16. Further ones are told why and closed at once.
LEAVING_MAX: Final = 256
LEAVING_MIN: Final = 16
#: Connections that the kernel may hold before they are accepted, and how many of them asyncio's own loop accepts in one
#: turn: each has a descriptor until it can be refused, some turns later.
BACKLOG: Final = 1024
ACCEPTED_PER_TURN: Final = 4
#: Unsent bytes of a TCP connection that the kernel may hold beyond the bytes in flight (``TCP_NOTSENT_LOWAT``). A PING
#: or an answer stands behind no more than this, one write and the buffer of asyncio's transport. Without it, the kernel
#: holds megabytes.
UNSENT_SIZE: Final = 128 * 1024
#: Microseconds of a round trip up to which the other side is near. In so little time no more than a stream's usual
#: window of 256 KiB is written and read, so that nothing is gained by filling it to the last byte.
NEAR_US: Final = 250
#: Where PINGs are off, the kernel finds a host that is gone: 60 seconds of silence, then four probes 15 seconds apart.
KEEPALIVE_IDLE_S: Final = 60
KEEPALIVE_INTERVAL_S: Final = 15
KEEPALIVE_COUNT: Final = 4
#: The kernel also finds a host that acknowledges nothing that it is sent. Longer than it takes to find a slow reader.
UNACKED_S: Final = 120
#: Bytes of a file of TLS: the authorities of a system are a quarter of it, and so are 6,000 revoked certificates.
TLS_FILE_SIZE_MAX: Final = 1024 * 1024
#: Contexts of dialling sides that a process keeps, 200 KiB each with the authorities of the system.
TLS_CONTEXTS_MAX: Final = 16
#: Bytes that the other side may send before the handshake of TLS is done: a chain of certificates has some KiB.
TLS_HANDSHAKE_SIZE_MAX: Final = 64 * 1024
#: Seconds that a dialling side waits for that handshake on one connection.
TLS_HANDSHAKE_S: Final = 5.0
#: Bytes that TLS itself may owe a side that does not read: answers to its requests for other keys.
TLS_OWED_MAX: Final = 64 * 1024
#: How long a side that failed in the handshake is read to its end, so that it can read why.
TLS_LINGER_S: Final = 1.0
#: How often a listener looks whether the files of its certificate have changed.
TLS_LOOK_S: Final = 10.0
#: Bytes that are read of a connection in one turn of the loop before others have theirs. uvloop would read 8 MiB.
READ_SIZE_MAX: Final = 256 * 1024


def half_open_max(wanted: int, connections: int) -> int:
    """Return how many of a listener's ``connections`` may be half-open, if ``wanted`` are asked for."""
    return min(wanted, max(1, connections // 2))


def leaving_max(connections: int) -> int:
    """Return how many refused connections a listener of ``connections`` keeps until they have read why."""
    return min(LEAVING_MAX, max(LEAVING_MIN, connections // 4))
