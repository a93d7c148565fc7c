"""The beginning of a connection: the handshake, and behind it the proof of the dialer's identity where one is asked for
(spec/protocol.md, sections 4 and 5). At its end the two sides serve each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from haptera.connection.config import COMPRESSION, EARLY_SIZE_MAX, Config, Role
from haptera.connection.events import Established
from haptera.connection.guard import Guard
from haptera.connection.handshake import Agreement, Handshake, needs_proof
from haptera.wire import COMPRESSED, SIGNED, Frame, FrameDecoder, FrameType, Signer, direction_keys, ignored_tags

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from haptera.connection.control_frames import Control
    from haptera.connection.frame_router import FrameRouter
    from haptera.connection.grease import Grease
    from haptera.connection.open_streams import Streams
    from haptera.connection.outgoing_requests import Requester
    from haptera.connection.timekeeping import Timekeeper


class Beginning:
    """Takes the first frames, one at a time, because each decides how those behind it are read.

    ``established`` is called with the terms of the handshake, ``ended`` when the two sides serve each other.
    """

    def __init__(
        self,
        role: Role,
        config: Config,
        grease: Grease | None,
        streams: Streams,
        requester: Requester,
        *,
        established: Callable[[Agreement], None],
        ended: Callable[[], None],
    ) -> None:
        #: The other side's identity is proved, or this one's: None before the handshake is done.
        self.guard: Guard | None = None
        #: The answer of a dialer to the mechanisms that WELCOME lists: whether it proves its identity by one of them.
        self.proves: Callable[[Sequence[str]], bool] | None = None
        self._dials = role is Role.DIALER
        self._config = config
        self._streams = streams
        self._outbox = streams.outbox
        self._requester = requester
        self._established = established
        self._ended = ended
        self._agreement: Agreement | None = None
        self._handshake = Handshake(config, grease, dials=self._dials)
        if self._handshake.sent:
            self._outbox.add_control(self._handshake.sent)

    def use(self, decoder: FrameDecoder, reception: FrameRouter, control: Control, time: Timekeeper) -> None:
        """Take over the parts that are made for the whole life of the connection."""
        self._decoder = decoder
        self._reception = reception
        self._control = control
        self._time = time

    def offer(self, mechanisms: Callable[[], Sequence[str]]) -> None:
        """Have an acceptor ask, when HELLO has come, how this one dialer may prove its identity."""
        self._handshake.mechanisms = mechanisms

    @property
    def quiet(self) -> bool:
        """Whether nothing but the exchange may be sent."""
        return self.guard is not None and self.guard.quiet

    def receive(self, frame: Frame) -> None:
        """Take a frame. Raises an error that ends the connection."""
        if self.guard is not None:
            self.guard.check(frame)
            self._reception.receive((frame,))
            return
        handshake = self._handshake
        self._reception.check_flags(frame, shaking=True)
        if frame.type == FrameType.ERROR and not frame.stream and self._dials:
            self._control.receive_error(frame)
        agreement = self._agreement = handshake.receive(frame)
        if not self._dials:
            self._outbox.add_control(handshake.sent)
        keys = handshake.keys(agreement)
        if keys is not None:
            self._sign(keys)
        guarded = needs_proof(agreement)
        if self._dials:
            guarded = self.proves is not None and self.proves(agreement.mechanisms)
        self._established(agreement)
        self._streams.events.append(Established())
        if guarded:
            self._guard(handshake.transcript)
        else:
            self._open(agreement)

    def _guard(self, transcript: tuple[bytes, bytes]) -> None:
        """Serve nothing until an identity is proved, and keep little."""
        streams, config = self._streams, self._config
        self.guard = Guard(streams.calls, transcript, dials=self._dials, signs=config.signs_by_exchange)
        self._time.await_proof(streams.now)
        self._decoder.limit(min(EARLY_SIZE_MAX, config.limits.max_frame))
        streams.ledger.limit = min(EARLY_SIZE_MAX, config.budget)
        self._requester.hold()

    def sign_behind(self, ikm: bytes, salt: bytes) -> None:
        """Sign a dialer's frames behind its proof, which is queued, and take none but signed ones, or an ERROR."""
        assert self.guard is not None
        self.guard.signing = True
        self._sign(direction_keys(ikm, salt), takes_error=True)

    def admit(self, secret: tuple[bytes, bytes] | None = None) -> None:
        """Take the proof for good. With the ``secret`` of an exchange an acceptor signs from the next frame on."""
        assert self.guard is not None
        assert self._agreement is not None
        self._time.proved()
        self._decoder.limit(self._config.limits.max_frame)
        self._streams.ledger.limit = self._config.budget
        if secret is not None:
            self._sign(direction_keys(*secret))
        self._open(self._agreement)

    def _sign(self, keys: tuple[bytes, bytes], *, takes_error: bool = False) -> None:
        """Sign all frames from here on, and take signed ones alone."""
        own, other = keys if self._dials else keys[::-1]
        self._outbox.sign(Signer(own))
        self._decoder.verify(Signer(other), takes_error=takes_error)
        self._reception.allow(SIGNED)

    def _open(self, agreement: Agreement) -> None:
        """Let the two sides serve each other."""
        streams = self._streams
        codec = self._config.compression
        if codec is not None and COMPRESSION in agreement.capabilities:
            streams.codec = codec
            self._outbox.compress(codec)
            self._reception.allow(COMPRESSED)
        limits = agreement.peer_limits
        self._requester.open(limits.max_streams)
        self._outbox.open(limits.max_frame, limits.connection_window, limits.stream_window)
        streams.open(limits, ignored_tags(agreement.capabilities))
        self._ended()
