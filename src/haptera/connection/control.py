"""Frames of the connection itself, once it is open: PING, PONG, GOAWAY (spec/protocol.md, section 3)."""

from typing import Final

from haptera.connection.checks import check_control
from haptera.connection.events import GoawayReceived, PongReceived
from haptera.connection.streams import Streams
from haptera.errors import RemoteProtocolError
from haptera.wire.frame import Frame, FrameType, encode_frame
from haptera.wire.payload import Goaway, decode_payload

PING_SIZE: Final = 8


class ControlReceiver:
    """Answers PINGs and remembers a GOAWAY. Its methods raise what ends the connection."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        #: The peer's last GOAWAY.
        self.goaway: Goaway | None = None

    def receive_ping(self, frame: Frame) -> None:
        """A PING: its bytes go back."""
        check_control(frame, PING_SIZE)
        self._streams.charge()
        self._streams.outbox.add_control(encode_frame(FrameType.PONG, 0, 0, b"", frame.payload))

    def receive_pong(self, frame: Frame) -> None:
        """A PONG."""
        check_control(frame, PING_SIZE)
        self._streams.events.append(PongReceived(frame.payload))

    def receive_goaway(self, frame: Frame) -> None:
        """A GOAWAY: the peer opens no more streams, and answers no new ones."""
        check_control(frame)
        goaway = decode_payload(Goaway, frame.payload)
        if self.goaway is not None and goaway.last_stream > self.goaway.last_stream:
            raise RemoteProtocolError(1008, "a later GOAWAY raises its last stream")
        self.goaway = goaway
        self._streams.events.append(GoawayReceived(goaway))
