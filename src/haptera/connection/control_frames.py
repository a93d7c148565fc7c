"""Frames of the connection itself: PING, PONG, GOAWAY and the ERROR that ends it (spec/protocol.md, section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn

from haptera.connection.checks import check_control
from haptera.connection.events import Closed, GoawayReceived, PongReceived
from haptera.errors import TABLE, Code, Failure, LocalProtocolError, RemoteProtocolError
from haptera.wire import (
    Frame,
    FrameType,
    Goaway,
    Tag,
    decode_failure,
    decode_payload,
    encode_entry,
    encode_frame,
    encode_payload,
)

if TYPE_CHECKING:
    from haptera.connection.open_streams import Streams

PING_SIZE: Final = 8


class ClosedError(Exception):
    """The peer has ended the connection; ``event`` says so."""

    def __init__(self, event: Closed) -> None:
        super().__init__()
        self.event = event


class Control:
    """Sends and receives the frames of stream 0. Its methods raise the errors that end the connection."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._outbox = streams.outbox
        self._pongs_owed = 0  # a number, not the PINGs: a peer that never answers one makes nothing grow

    def send_ping(self, payload: bytes) -> None:
        """Ask for the same 8 bytes in a PONG."""
        self._pongs_owed += 1
        self._outbox.add_control(encode_frame(FrameType.PING, 0, 0, b"", payload))

    def send_goaway(self, said: Failure) -> None:
        """Refuse requests behind the last that was received, and say so, with which answers to changes were read."""
        streams = self._streams
        goaway = Goaway(code=said.code, name=said.name, message=said.message, last_stream=streams.go_away())
        below = streams.changes.tell(streams.next_call, least=1)
        entries = b"" if below is None else encode_entry(Tag.ANSWERED_BELOW, below.to_bytes(8, "big"))
        self._outbox.add_control(encode_frame(FrameType.GOAWAY, 0, 0, entries, encode_payload(goaway)))

    def send_error(self, said: Failure) -> None:
        """Say why the connection ends."""
        self._outbox.add_ready(encode_frame(FrameType.ERROR, 0, 0, b"", encode_payload(said)))

    def receive_ping(self, frame: Frame) -> None:
        """A PING: its bytes go back."""
        check_control(frame, PING_SIZE)
        self._streams.charge()
        self._outbox.add_control(encode_frame(FrameType.PONG, 0, 0, b"", frame.payload))

    def receive_pong(self, frame: Frame) -> None:
        """A PONG: one for each PING that was sent is free, however late it comes."""
        check_control(frame, PING_SIZE)
        if self._pongs_owed:
            self._pongs_owed -= 1
        else:
            self._streams.charge()
        self._streams.events.append(PongReceived(frame.payload))

    def receive_goaway(self, frame: Frame) -> None:
        """A GOAWAY: the peer opens no more streams, and answers no new ones."""
        entries = check_control(frame)
        before = self._streams.goaway
        if before is not None:
            self._streams.charge()
        goaway = decode_payload(Goaway, frame.payload)
        if before is not None and goaway.last_stream > before.last_stream:
            raise RemoteProtocolError(Code.PROTOCOL_VIOLATION, "a later GOAWAY raises its last stream")
        self._streams.goaway = goaway
        self._streams.going_away = True
        below = entries.get(Tag.ANSWERED_BELOW)
        self._streams.events.append(GoawayReceived(goaway, None if below is None else int.from_bytes(below, "big")))

    @staticmethod
    def receive_error(frame: Frame) -> NoReturn:
        """An ERROR on stream 0: raises ``ClosedError``. A code of a later version keeps its number and name."""
        check_control(frame)
        said = decode_failure(frame.payload)
        error = LocalProtocolError(
            said.code if said.code in TABLE else Code.PROTOCOL_VIOLATION, said.message, said.details
        )
        error.code, error.name = said.code, said.name
        raise ClosedError(Closed(error, said))
