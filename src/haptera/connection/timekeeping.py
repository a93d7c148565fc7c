"""The debts of a peer and when they are due (spec/protocol.md, sections 3, 4 and 8). The time is passed in, in
monotonic seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from haptera.connection.config import PROBE_SILENCE_S, PROBE_TIMEOUT_S, RATE_MIN_BYTES_PER_S, Config
from haptera.errors import Code, RemoteProtocolError

if TYPE_CHECKING:
    from haptera.wire import FrameDecoder

_NEVER = float("inf")


class Timekeeper:
    """Watches the handshake, the frame that is arriving, and the peer's silence."""

    def __init__(self, config: Config, decoder: FrameDecoder, now: float) -> None:
        self._config = config
        self._decoder = decoder
        self._handshake_due = now + config.handshake_timeout_s
        self._awaited = "the handshake"
        self._last_received = now
        self._pinged_at: float | None = None
        #: When the newest bytes came of a frame whose rest has yet to come; None if there is none.
        self.frame_since: float | None = None
        self._probe_due = _NEVER
        self._ping_interval: float | None = None  # none before the handshake is done, or where silence is allowed

    def open(self, ping_interval_ms: int) -> None:
        """The handshake is done; ``ping_interval_ms`` is 0 for a connection that may be silent for ever."""
        self._handshake_due = _NEVER
        if ping_interval_ms:
            self._ping_interval = ping_interval_ms / 1000

    def await_proof(self, now: float) -> None:
        """The proof of an identity is due, in a time of its own."""
        self._handshake_due = now + self._config.authentication_timeout_s
        self._awaited = "authentication"

    def proved(self) -> None:
        """The proof was accepted."""
        self._handshake_due = _NEVER

    def received(self, now: float, *, frames: bool) -> None:
        """Bytes have come, and been decoded; ``frames`` says whether any frame became whole by them."""
        self._last_received = now
        self._pinged_at = None
        self._probe_due = _NEVER
        if not self._decoder.held:
            self.frame_since = None
        elif frames or self.frame_since is None:
            self.frame_since = now

    def next_due(self) -> float:
        """Return the time at which ``overdue`` or ``wants_ping`` has something to say, if nothing arrives before."""
        return min(self._handshake_due, self._frame_due(), self._silence_due())

    def overdue(self, now: float) -> RemoteProtocolError | None:
        """Return the debt that the peer has failed to pay in time."""
        if now >= self._handshake_due:
            return RemoteProtocolError(Code.HANDSHAKE_TIMEOUT, f"{self._awaited} took too long")
        if now >= self._frame_due():
            return RemoteProtocolError(Code.IDLE_TIMEOUT, "a frame was begun and did not arrive in time")
        if self._pinged_at is not None and now >= self._silence_due():
            return RemoteProtocolError(Code.IDLE_TIMEOUT, "nothing was received, and a PING was not answered")
        return None

    def wants_ping(self, now: float) -> bool:
        """Whether the peer has been silent for so long that it is asked for a sign of life; once per silence."""
        if self._pinged_at is not None or now < self._silence_due():
            return False
        self._pinged_at = now
        return True

    def probe(self, now: float) -> bool:
        """Doubt that the peer is there: a sign of life is due soon. Say whether it is to be asked for one now."""
        if now - self._last_received < PROBE_SILENCE_S or self._probe_due != _NEVER:
            return False
        self._probe_due = now + PROBE_TIMEOUT_S
        self._pinged_at = now if self._pinged_at is None else self._pinged_at
        return True

    def postpone_probe(self, now: float) -> None:
        """Give the peer more time for its sign of life: bytes that it was sent before are still on their way."""
        if self._probe_due != _NEVER:
            self._probe_due = now + PROBE_TIMEOUT_S

    def _frame_due(self) -> float:
        if self.frame_since is None or self._handshake_due != _NEVER:
            return _NEVER  # the handshake's own time is shorter
        return self.frame_since + self._config.frame_timeout_s + self._decoder.wanted / RATE_MIN_BYTES_PER_S

    def _silence_due(self) -> float:
        if self._ping_interval is None:
            return self._probe_due
        since = self._last_received if self._pinged_at is None else self._pinged_at
        return min(since + self._ping_interval, self._probe_due)
