"""The trace that a call belongs to (W3C Trace Context; spec/protocol.md, section 2.3)."""

from __future__ import annotations

from typing import Final

import msgspec

from haptera.wire import Tag, encode_entry

_TRACEPARENT_SIZE: Final = 26
_TRACEPARENT_HEAD: Final = bytes((Tag.TRACEPARENT, _TRACEPARENT_SIZE))
_VERSION: Final = b"\x00"
_INVALID_VERSION: Final = 0xFF
#: The longest text that one metadata entry carries. The W3C allows more: the rest is cut off by whole members.
_STATE_SIZE_MAX: Final = 255


class Trace(msgspec.Struct, frozen=True):
    """The place of a call in a trace.

    ``trace_id`` is 16 bytes, ``parent_id`` the 8 bytes of the caller's span, ``flags`` the W3C's (bit 0: sampled),
    ``state`` the tracestate header's text.
    """

    trace_id: bytes
    parent_id: bytes
    flags: int = 0
    state: str = ""

    def child(self) -> Trace:
        """Return the same trace with a parent id of its own, for a call made on behalf of this one."""
        import random  # noqa: PLC0415  # few programs have traces, and it takes a millisecond

        drawn = random.getrandbits(64) or 1  # names a span, and guards nothing
        return Trace(self.trace_id, drawn.to_bytes(8, "big"), self.flags, self.state)

    def entries(self) -> bytes:
        """Encode this as the metadata entries of a request."""
        parent = _TRACEPARENT_HEAD + _VERSION + self.trace_id + self.parent_id + bytes((self.flags & 0xFF,))
        state = _shortened(self.state)
        return parent + encode_entry(Tag.TRACESTATE, state) if state else parent


def decode_trace(entries: dict[int, bytes]) -> Trace | None:
    """Return the trace that a request's metadata names; None if there is none, or none that the W3C calls valid."""
    parent = entries.get(Tag.TRACEPARENT)
    if parent is None or parent[0] == _INVALID_VERSION:
        return None
    trace_id, parent_id = parent[1:17], parent[17:25]
    if not any(trace_id) or not any(parent_id):
        return None
    return Trace(trace_id, parent_id, parent[25], entries.get(Tag.TRACESTATE, b"").decode())


def _shortened(state: str) -> bytes:
    encoded = state.encode()
    while len(encoded) > _STATE_SIZE_MAX:
        encoded = encoded.rpartition(b",")[0]  # empty in the end, if the first member alone is too long
    return encoded
