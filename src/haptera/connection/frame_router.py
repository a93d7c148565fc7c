"""Which part of a connection takes a frame (spec/protocol.md, section 2, "Order of checks")."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from haptera.connection.answer_frames import AnswerReceiver
from haptera.connection.checks import misplaced
from haptera.connection.incoming_requests import RequestReceiver
from haptera.errors import Code, RemoteProtocolError
from haptera.wire import COMPRESSED, FIRST_IGNORABLE_TYPE, SIGNED, STREAM_MAX, Frame, FrameType

if TYPE_CHECKING:
    from haptera.connection.control_frames import Control
    from haptera.connection.item_frames import ItemReceiver
    from haptera.connection.open_streams import Streams

_HANDSHAKE_TYPES: Final = frozenset({int(FrameType.HELLO), int(FrameType.WELCOME)})


class FrameRouter:
    """Gives each frame behind the handshake to the part that takes its type.

    Its methods raise ``RemoteProtocolError`` for a fault that ends the connection, ``ClosedError`` if the peer ends it.
    """

    __slots__ = ("_answers", "_control", "_in_rows", "_receivers", "_refused_flags", "_streams")

    def __init__(self, streams: Streams, control: Control, items: ItemReceiver) -> None:
        self._streams = streams
        self._control = control
        self._answers = AnswerReceiver(streams)
        requests = RequestReceiver(streams)
        #: Most frames of these types are equal, and come many at a time.
        self._in_rows: dict[int, Callable[[Sequence[Frame], int, int], int]] = {
            int(FrameType.REQUEST): requests.receive_usual,
            int(FrameType.RESPONSE): self._answers.receive_usual,
        }
        self._receivers: dict[int, Callable[[Frame], None]] = {
            int(FrameType.REQUEST): requests.receive_request,
            int(FrameType.ITEM): items.receive_item,
            int(FrameType.RESPONSE): self._answers.receive_answer,
            int(FrameType.CANCEL): requests.receive_cancel,
            int(FrameType.CREDIT): items.receive_credit,
            int(FrameType.FINISH): requests.receive_finish,
            int(FrameType.PING): control.receive_ping,
            int(FrameType.PONG): control.receive_pong,
            int(FrameType.GOAWAY): control.receive_goaway,
        }
        self._refused_flags = SIGNED | COMPRESSED  # their capability has not been accepted

    def allow(self, flag: int) -> None:
        """Take frames with a flag, whose capability has been accepted."""
        self._refused_flags &= ~flag

    def receive(self, frames: Sequence[Frame]) -> None:
        """Take frames, in order."""
        receivers, refused_flags = self._receivers, self._refused_flags
        place, count = 0, len(frames)
        while place < count:
            in_rows = self._in_rows.get(frames[place].type)
            if in_rows is not None:
                place = in_rows(frames, place, refused_flags)
                if place == count:
                    break
            frame = frames[place]
            place += 1
            receiver = receivers.get(frame.type)
            if receiver is not None and not frame.flags & refused_flags:
                receiver(frame)
            else:
                self._receive_unusual(frame)

    def _receive_unusual(self, frame: Frame) -> None:
        """Take an ERROR, a frame of a type that has no receiver, or refuse one for its flags."""
        if frame.flags & self._refused_flags:
            self.check_flags(frame)
        receiver = self._receivers.get(frame.type)
        if receiver is not None:
            receiver(frame)
        elif frame.type != FrameType.ERROR:
            self._receive_unknown(frame)
        elif frame.stream:
            self._answers.receive_answer(frame)
        else:
            self._control.receive_error(frame)

    def check_flags(self, frame: Frame, *, shaking: bool = False) -> None:
        """Raise 1008 for a flag whose capability was not accepted.

        A SIGNED frame of any type is followed by bytes that are no frame. COMPRESSED means nothing on an unknown type,
        behind the handshake: one that is ``shaking`` knows no type but its own.
        """
        refused = frame.flags & self._refused_flags
        known = frame.type in self._receivers or frame.type == FrameType.ERROR
        if refused and (frame.flags & SIGNED or known or shaking):
            raise RemoteProtocolError(
                Code.PROTOCOL_VIOLATION, "a frame has a flag whose capability was not accepted", {"flags": frame.flags}
            )

    def _receive_unknown(self, frame: Frame) -> None:
        if frame.type in _HANDSHAKE_TYPES:
            raise misplaced(frame, "a second handshake")
        if frame.type < FIRST_IGNORABLE_TYPE:
            raise RemoteProtocolError(
                Code.UNKNOWN_FRAME_TYPE, "a frame's type is critical and not known", {"type": frame.type}
            )
        if frame.stream > STREAM_MAX:
            raise misplaced(frame, "a stream's id is too large")
        self._streams.charge()
