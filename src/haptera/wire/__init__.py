"""Bytes to frames and back: the frame layout, its checksums, metadata and handshake payloads.

Everything here is pure: no sockets, no clock, no files, no event loop. ``spec/protocol.md``, sections 2, 4 and 6, is
the contract that these modules implement.
"""

from haptera.wire.payload import Limits

__all__ = ["Limits"]
