"""The bounds of what one asyncio peer keeps, each with its reason."""

from typing import Final

#: What a call may take that does not say: long enough for any answer that is worth waiting for without a thought.
CALL_TIMEOUT_S: Final = 5.0
#: An attempt to connect that is undecided after so long is joined by the next one: what RFC 8305 recommends, more than
#: a round trip on almost every path.
ATTEMPT_DELAY_S: Final = 0.25
#: Addresses of one name that are listened on or dialled. More than any sound name has; a hostile resolver gives more.
ADDRESSES_MAX: Final = 16
#: Answers that may wait to be written before new requests are kept, not started (spec/protocol.md, section 3).
UNWRITTEN_MAX: Final = 1024 * 1024
#: What is read of a connection in one turn of the loop before others have theirs. uvloop would read 8 MiB.
READ_SIZE_MAX: Final = 256 * 1024
#: How many requests are handed to services before what they answered is written. Of fifty that come together the
#: answers to the first would wait for the last, and their caller with them: the two sides would take turns.
BATCH_MAX: Final = 16
#: What one write hands to the transport: enough to fill a socket, little enough that a PING need not wait for it.
WRITE_SIZE: Final = 256 * 1024
#: The transport asks to pause above the first and to go on below the second: with a write that did not fit, almost
#: always, so that it holds no second one.
TRANSPORT_HIGH: Final = 32 * 1024
TRANSPORT_LOW: Final = 16 * 1024
#: Calls that may wait for a free stream, and the bytes of their payloads. Beyond them a call fails at once: its
#: caller makes more than the other side answers.
WAITING_CALLS_MAX: Final = 100_000
WAITING_SIZE_MAX: Final = 64 * 1024 * 1024
#: How often it is looked whether one that holds much moves, while the process's budget is used up.
HOLDING_LOOK_S: Final = 1.0
#: Less than the first written within the second, while more waits, is a side that does not read (section 3, 3009).
WRITTEN_MIN: Final = 64 * 1024
WRITE_TIMEOUT_S: Final = 30.0
#: How long an end waits for what is written to be taken, and for the other side to close: until then what it still
#: sends is read and thrown away, so that it can read why (section 3). Longer ends with a reset.
LINGER_S: Final = 1.0
#: How often the clock is looked at while the other side owes the rest of something.
TICK_S: Final = 1.0
#: How long an end waits for handlers that were cancelled: those that go on are logged and left behind.
HANDLERS_END_S: Final = 5.0
#: How long an orderly end waits for what is under way (section 3, "Ending").
DRAIN_S: Final = 30.0
#: Connections of one listener. Each costs some 12 KiB and a file descriptor.
CONNECTIONS_MAX: Final = 10_000
#: Those of them whose handshake is not done: room for thousands of clients that start at one instant and share a few
#: busy processors, and 64 KiB each at most. Never more than half of a listener's connections, because silent ones
#: would otherwise fill a small listener and keep everybody out.
HALF_OPEN_MAX: Final = 4096
#: Connections that were refused and may take a second to read why: so many, or a quarter of a listener's connections
#: where that is fewer, but not fewer than the second. Those beyond are told why and closed at once.
LEAVING_MAX: Final = 256
LEAVING_MIN: Final = 16
#: Connections that the kernel may hold before they are accepted, and how many asyncio's own loop accepts of them in one
#: turn: each has a descriptor until it can be refused, some turns later.
BACKLOG: Final = 1024
ACCEPTED_PER_TURN: Final = 4
#: What the kernel may hold of a TCP connection's bytes beyond those that are on their way (``TCP_NOTSENT_LOWAT``): a
#: PING or an answer stands behind no more than this, one write and what the transport keeps. Without it, it is
#: megabytes.
UNSENT_SIZE: Final = 128 * 1024
#: Where PINGs are off, the kernel finds a host that is gone: nothing for so long, then that many probes so far apart.
KEEPALIVE_IDLE_S: Final = 60
KEEPALIVE_INTERVAL_S: Final = 15
KEEPALIVE_COUNT: Final = 4
#: And one that acknowledges nothing of what it is sent. Longer than it takes to find a slow reader.
UNACKED_S: Final = 120


def half_open_max(wanted: int, connections: int) -> int:
    """Return how many of a listener's connections may be half-open, if ``wanted`` are asked for."""
    return min(wanted, max(1, connections // 2))


def leaving_max(connections: int) -> int:
    """Return how many refused connections a listener keeps until they have read why, if it has so many others."""
    return min(LEAVING_MAX, max(LEAVING_MIN, connections // 4))
