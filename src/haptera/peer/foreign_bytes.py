"""The first bytes of a side that speaks no TLS to one that does: told apart, and answered in the clear."""

from __future__ import annotations

from typing import Final

from haptera.errors import Code, RemoteProtocolError
from haptera.transport import Foreign
from haptera.wire import MAGIC_BYTES, FrameType, encode_frame, encode_payload

_ADVICE: Final = "this address takes TLS alone: dial hapteras://"


def judge_dialler(first: bytes) -> Foreign:
    """Judge what a dialler has sent to a listener of TLS. One that speaks Haptera in the clear reads why it is refused
    (spec/protocol.md, section 1).
    """
    if not _is_frame(first):
        return Foreign("it does not speak TLS")
    said = RemoteProtocolError(Code.PROTOCOL_VIOLATION, _ADVICE).failure("not_applied")
    return Foreign("it speaks Haptera without TLS", encode_frame(FrameType.ERROR, 0, 0, b"", encode_payload(said)))


def judge_listener(first: bytes) -> Foreign:
    """Judge what a listener has sent to a dialler of TLS."""
    if _is_frame(first):
        return Foreign("it speaks Haptera without TLS: haptera:// and not hapteras:// reaches it")
    return Foreign("it does not speak TLS")


def _is_frame(first: bytes) -> bool:
    return MAGIC_BYTES.startswith(first[: len(MAGIC_BYTES)])
