"""The time between the handshake and the proof of an identity: the frames that may come in it (spec/protocol.md, 5).

Until then an acceptor knows no user, and a dialer cannot tell its acceptor from one that stands in its place. So both
take one frame at a time, and none that they would have to keep for a stranger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.connection.config import AUTHENTICATE, EARLY_RECEIVED_MAX, SESSION_SERVICE
from haptera.errors import Code, RemoteProtocolError
from haptera.wire import (
    CONTINUED,
    HEADER_SIZE,
    MORE,
    SIGNED,
    STREAMING,
    Frame,
    FrameType,
    decode_route,
    route_length,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from haptera.connection.stream_halves import Stream

#: The streams of the two REQUESTs that are all a dialer sends before frames are signed.
_STREAMS: Final = (1, 3)


class Guard:
    """Judges the frames of one side's peer before the proof. Its methods raise the errors that end the connection."""

    __slots__ = ("_calls", "_dials", "_received", "_signs", "_steps", "signing", "transcript")

    def __init__(self, calls: Mapping[int, Stream], transcript: tuple[bytes, bytes], *, dials: bool, signs: bool):
        #: HELLO and WELCOME as they were sent.
        self.transcript: tuple[bytes, bytes] = transcript
        #: Whether the dialer has sent its proof, from which on frames are signed.
        self.signing: bool = False
        self._calls = calls
        self._dials = dials
        self._signs = signs
        self._received = 0
        self._steps = 0

    @property
    def quiet(self) -> bool:
        """Whether nothing but the exchange may be sent: its frames are not signed yet, and no other may be unsigned."""
        return self._signs and not self.signing

    def check(self, frame: Frame) -> None:
        """Refuse a frame that may not come yet."""
        self._received += HEADER_SIZE + len(frame.metadata) + len(frame.payload)
        if self._received > EARLY_RECEIVED_MAX:
            raise RemoteProtocolError(Code.PROTOCOL_VIOLATION, "too much was sent before authentication is done")
        if frame.type == FrameType.ERROR and not frame.stream and not frame.flags & SIGNED:
            return  # the other side says why it ends the connection
        if self._dials:
            self._check_answer(frame)
        elif self._signs:
            self._check_step(frame)
        elif frame.type == FrameType.ITEM:
            raise RemoteProtocolError(Code.PROTOCOL_VIOLATION, "an ITEM comes before authentication is done")

    def _check_step(self, frame: Frame) -> None:
        """Of a dialer whose frames will be signed: nothing but its two REQUESTs may come unsigned."""
        step = self._steps
        self._steps += 1
        if (
            step >= len(_STREAMS)
            or frame.type != FrameType.REQUEST
            or frame.stream != _STREAMS[step]
            or frame.flags & (MORE | CONTINUED | STREAMING | SIGNED)
            or not _is_authenticate(frame)
        ):
            raise _unsigned()

    def _check_answer(self, frame: Frame) -> None:
        if self.signing:
            if not frame.flags & SIGNED and frame.stream != _STREAMS[1]:
                raise _unsigned()
        elif self._signs:
            answers = frame.type in (FrameType.RESPONSE, FrameType.ERROR) and frame.stream == _STREAMS[0]
            if not answers or frame.flags & (MORE | CONTINUED | SIGNED):
                raise _unsigned()
        elif frame.type in (FrameType.RESPONSE, FrameType.ITEM):
            stream = self._calls.get(frame.stream)
            if stream is not None and not stream.sending.plain:
                raise RemoteProtocolError(Code.PROTOCOL_VIOLATION, "an answer comes before authentication is done")


def _is_authenticate(frame: Frame) -> bool:
    if frame.body_crc != frame.actual_crc:
        return False
    try:
        return decode_route(frame.metadata[: route_length(frame.metadata)]) == (SESSION_SERVICE, AUTHENTICATE)
    except RemoteProtocolError:
        return False


def _unsigned() -> RemoteProtocolError:
    return RemoteProtocolError(Code.SIGNATURE_MISMATCH, "a frame comes unsigned that is no step of the exchange")
