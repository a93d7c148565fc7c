"""The bounds of one asyncio peer, each with its reason."""

from __future__ import annotations

from typing import Final

#: The timeout of a call that gives none: long enough for any answer that is worth waiting for without a thought.
CALL_TIMEOUT_S: Final = 5.0
#: Answers that may wait to be written before new requests are kept, not started (spec/protocol.md, section 3).
UNWRITTEN_MAX: Final = 1024 * 1024
#: Where less was read of one, it is not worth the system calls to stop it, so that the others have theirs.
READ_SIZE_SMALL: Final = 4096
#: Requests that are handed to services before their answers are written. Of fifty that come together the
#: answers to the first would wait for the last, and their caller with them: the two sides would take turns.
BATCH_MAX: Final = 16
#: The same where the requests of the batch before were not answered at once, as changes are not: there are no answers
#: that could leave early, and each batch has a price of its own.
BATCH_UNANSWERED_MAX: Final = 64
#: As few are one batch in every turn of the loop: it is no more than either of them, or than a connection's part.
BATCH_MIN: Final = 16
#: Requests of one turn of the loop that leave together while the turn makes more of them. Of fifty in one write at its
#: end the first would wait for the last, and the two sides would take turns. Fewer cost both sides more system calls
#: than the time that they win.
REQUESTS_PER_WRITE: Final = 16
#: They leave so only where an answer takes at most this many times as long as this side's work on so many. With a disk
#: of 1.5 ms a node that shares a sync between fifty changes is as fast as one that begins with the first of them.
EARLY_WRITE_PATIENCE: Final = 9
#: Bytes of one write to the transport: enough to fill a socket, little enough that a PING need not wait for it.
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
#: How long an end waits until written bytes are taken and the other side closes: until then the bytes that it still
#: sends are read and thrown away, so that it can read why (section 3). Longer ends with a reset.
LINGER_S: Final = 1.0
#: How often the clock is looked at while the other side owes the rest of something.
TICK_S: Final = 1.0
#: How long an end waits for handlers that were cancelled: handlers that go on are logged and left behind.
HANDLERS_END_S: Final = 5.0
#: How long an orderly end waits for calls and requests under way (section 3, "Ending").
DRAIN_S: Final = 30.0
