"""The first bytes of a side that speaks another protocol than the one of an address: told apart, and answered."""

from __future__ import annotations

from typing import Final

from haptera.errors import Code, RemoteProtocolError
from haptera.transport import Foreign
from haptera.wire import MAGIC_BYTES, FrameType, encode_frame, encode_payload, foreign_protocol

_ADVICE: Final = "this address takes TLS alone: dial hapteras://"


def judge_dialler(first: bytes) -> Foreign:
    """Judge what a dialler has sent to a listener of TLS. One that speaks Haptera in the clear reads why it is refused
    (spec/protocol.md, section 1).
    """
    if not is_frame(first):
        return Foreign(_reason(first))
    return Foreign("it speaks Haptera without TLS", refusal_of_frame(_ADVICE))


def judge_listener(first: bytes) -> Foreign:
    """Judge what a listener has sent to a dialler of TLS."""
    if is_frame(first):
        return Foreign("it speaks Haptera without TLS: haptera:// and not hapteras:// reaches it")
    return Foreign(_reason(first))


def is_frame(first: bytes) -> bool:
    """Whether bytes that have come first are those of a frame."""
    return MAGIC_BYTES.startswith(first[: len(MAGIC_BYTES)])


def refusal_of_frame(reason: str) -> bytes:
    """Return the answer to a dialler of Haptera, in the clear, at an address of something else."""
    said = RemoteProtocolError(Code.PROTOCOL_VIOLATION, reason).failure("not_applied")
    return encode_frame(FrameType.ERROR, 0, 0, b"", encode_payload(said))


def _reason(first: bytes) -> str:
    protocol = foreign_protocol(first)
    return "it does not speak TLS" if protocol is None else f"it speaks {protocol} without TLS"
