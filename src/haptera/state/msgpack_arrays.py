"""Headers of MessagePack arrays: code that encodes or decodes a long list in pieces puts its own around them."""

from __future__ import annotations


def array_header(count: int) -> bytes:
    """The shortest header of an array of ``count`` elements, as encoders write it."""
    if count < 16:
        return bytes((0x90 | count,))
    return b"\xdc" + count.to_bytes(2, "big") if count < 1 << 16 else b"\xdd" + count.to_bytes(4, "big")


def read_array_header(data: bytes, at: int) -> tuple[int, int] | None:
    """The place behind the header of an array at ``at``, and the number of its elements; None where none begins.

    Raises ``IndexError`` where the data ends before it.
    """
    byte = data[at]
    if byte & 0xF0 == 0x90:
        return at + 1, byte & 0x0F
    if byte in {0xDC, 0xDD}:
        behind = at + (3 if byte == 0xDC else 5)
        if behind > len(data):
            raise IndexError("the header ends too early")
        return behind, int.from_bytes(data[at + 1 : behind], "big")
    return None
