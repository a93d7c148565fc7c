"""The bounds of what one asyncio peer keeps, each with its reason."""

from typing import Final

#: Answers that may wait to be written before new requests are kept, not started (spec/protocol.md, section 3).
UNWRITTEN_MAX: Final = 1024 * 1024
#: What one write hands to the transport: enough to fill a socket, little enough that a PING need not wait for it.
WRITE_SIZE: Final = 256 * 1024
#: The transport asks to pause above the first and to go on below the second.
TRANSPORT_HIGH: Final = 256 * 1024
TRANSPORT_LOW: Final = 64 * 1024
#: Calls that may wait for a free stream, and the bytes of their payloads. Beyond them a call fails at once: its
#: caller makes more than the other side answers.
WAITING_CALLS_MAX: Final = 100_000
WAITING_SIZE_MAX: Final = 64 * 1024 * 1024
#: How long what the other side still sends is read and thrown away after a connection error, so that it can read
#: why (section 3); longer ends with a reset.
LINGER_S: Final = 1.0
#: How often the clock is looked at while the other side owes the rest of something.
TICK_S: Final = 1.0
#: How long an orderly end waits for what is under way (section 3, "Ending").
DRAIN_S: Final = 30.0
