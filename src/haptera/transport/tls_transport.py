"""TLS on one connection: a transport for the protocol above, and the protocol of the transport below.

asyncio and uvloop each have TLS of their own. Both tell the protocol of a connection only when its handshake is done,
so that no pool could count the half-open ones, and both end the connection of a side that speaks no TLS without a word
to it. Here the bytes pass OpenSSL in memory, on every loop in the same way.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import msgspec

from haptera.transport.limits import READ_SIZE_MAX, TLS_HANDSHAKE_SIZE_MAX, TLS_LINGER_S, TLS_OWED_MAX
from haptera.transport.read_buffer import read_into_place
from haptera.transport.tls_context import explain

if TYPE_CHECKING:
    from haptera.transport.tls_context import TlsContext

#: The first byte of TLS from a dialler, and those from a listener, which may refuse at once.
_HANDSHAKE: Final = 22
_ALERT: Final = 21
#: Bytes of one TLS record beyond its content, and of that content.
_RECORD_SIZE_MAX: Final = 16 * 1024
#: A word of the other side about this side's certificate ends with one of these. It has then looked at nothing else
#: that it was sent.
_REFUSALS: Final = (
    *("CERTIFICATE_REQUIRED", "BAD_CERTIFICATE", "CERTIFICATE_REVOKED", "CERTIFICATE_EXPIRED", "CERTIFICATE_UNKNOWN"),
    *("UNSUPPORTED_CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED", "HANDSHAKE_FAILURE", "PROTOCOL_VERSION"),
    *("NO_APPLICATION_PROTOCOL", "UNRECOGNIZED_NAME", "DECRYPT_ERROR"),
)

_of_this_thread = threading.local()  # the buffer that its connections are decrypted into, one at a time


class TlsFailed(OSError):
    """TLS could not begin, or has ended a connection. Its text is the reason.

    ``in_handshake`` says that the other side has seen nothing of the bytes inside.
    """

    def __init__(self, reason: str, *, in_handshake: bool) -> None:
        super().__init__(reason)
        self.in_handshake = in_handshake


class Foreign(NamedTuple):
    """The reason why the first bytes of the other side are not TLS, and the answer to them, in the clear."""

    reason: str
    answer: bytes = b""


#: Judges the first bytes of a side that speaks no TLS: as many as have come.
JudgeForeign = Callable[[bytes], Foreign]


class TlsSession(msgspec.Struct, frozen=True):
    """The result of a handshake.

    ``binding`` is the SHA-256 of the listening side's certificate. ``names`` are those of the other side's
    certificate, if that was verified: its URIs and DNS names, in its order.
    """

    version: str
    cipher: str
    binding: bytes
    names: tuple[str, ...]


class TlsTransport(asyncio.Transport, asyncio.Protocol):
    """Stands between the protocol that ``make`` gives for a connection and its transport.

    A listening side makes the protocol as soon as there is a connection, so that it is counted and has its time. A
    dialling side (``server_name`` is given) makes it when the handshake is done: until then nothing may be sent,
    because another connection may be the first. ``wait_open`` waits for that.
    """

    def __init__(
        self,
        make: Callable[[], asyncio.Protocol],
        tls: TlsContext,
        judge: JudgeForeign,
        *,
        server_name: str | None = None,
        on_failure: Callable[[], None] | None = None,
    ) -> None:
        super().__init__()
        #: None until the handshake is done.
        self.session: TlsSession | None = None
        self._make = make
        self._protocol: asyncio.Protocol | None = None  # before it is told of the connection
        self._tls = tls
        self._judge = judge
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._raw: asyncio.Transport | None = None
        self._into, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._listening = server_name is None
        self._object = tls.context.wrap_bio(
            self._into, self._out, server_side=self._listening, server_hostname=server_name
        )
        self._opened: asyncio.Future[None] | None = None if self._listening else self._loop.create_future()
        self._early = b""  # written before the handshake is done: the refusal of one connection too many
        self._ends_early = False  # nothing is to be sent behind that
        self._received = 0  # bytes of the handshake
        self._owed = 0  # bytes that TLS has sent by itself since the other side has last taken all
        self._eof = False  # nothing more is sent, and what comes is thrown away
        self._closing = False
        self._error: TlsFailed | None = None
        self._linger: asyncio.TimerHandle | None = None

    @property
    def has_spoken(self) -> bool:
        """Whether the other side has sent a part of the handshake."""
        return self._received > 0

    async def wait_open(self) -> None:
        """Wait, on a dialling side, for the handshake. Raises ``OSError``; then the connection is closed."""
        assert self._opened is not None  # of a dialling side
        try:
            await self._opened
        except asyncio.CancelledError:
            self.abort()
            raise

    # -- for the transport below ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """There is a connection, and nothing was said on it yet."""
        self._raw = raw = cast("asyncio.Transport", transport)
        read_into_place(raw, self)
        if self._listening:
            self._tell()
        else:
            self._shake_hands()

    def data_received(self, data: bytes) -> None:
        """Bytes have been read: go on with the handshake, or hand on the bytes inside."""
        if self._eof or self._closing:
            return
        if self.session is None:
            if not self._received and data[0] not in ((_HANDSHAKE,) if self._listening else (_HANDSHAKE, _ALERT)):
                self._refuse_foreign(data)
                return
            self._received += len(data)
        self._into.write(data)
        if self.session is None:
            self._shake_hands()
        if self.session is not None:
            self._read()
        elif self._received > TLS_HANDSHAKE_SIZE_MAX:
            # Not before: the first bytes inside may come with the last ones of the handshake.
            self._fail(f"its handshake has more than {TLS_HANDSHAKE_SIZE_MAX} bytes")

    def eof_received(self) -> bool | None:
        """The other side sends no more."""
        if self.session is None:
            if not self._listening and self._error is None:
                self._error = TlsFailed("the other side ended the connection in the TLS handshake", in_handshake=True)
            return False
        return False if self._eof or self._closing else self._above.eof_received()

    def pause_writing(self) -> None:
        """The socket takes less than is written."""
        if self._protocol is not None:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """The socket has caught up."""
        self._owed = 0
        if self._protocol is not None:
            self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is closed."""
        self._closing = True
        if self._linger is not None:
            self._linger.cancel()
        error = self._error or exc
        if self._opened is not None and not self._opened.done():
            self._opened.set_exception(error or ConnectionResetError("the connection was closed"))
            self._opened.exception()  # it is no loss if the attempt was given up
        if self._protocol is not None:
            self._protocol.connection_lost(error)

    # -- for the protocol above -------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes, once the handshake is done."""
        if self._eof or self._closing or not data:
            return
        if self.session is None:
            self._early += data
            return
        view = memoryview(data)
        try:
            while view:
                view = view[self._object.write(view) :]
        except ssl.SSLError as error:
            self._fail(_reason(error), error)
            return
        self._send_out()

    def can_write_eof(self) -> bool:
        """Whether one direction can be closed alone."""
        return self._below.can_write_eof()

    def write_eof(self) -> None:
        """Say, behind the written bytes, that nothing more is sent. All that still comes is thrown away."""
        if self._eof or self._closing:
            return
        if self.session is not None:
            self._say_end()
            self._end_sending()
        elif self._early:
            self._ends_early = True
        else:
            self._end_sending()

    def get_write_buffer_size(self) -> int:
        """Bytes that the socket has not taken yet."""
        return self._below.get_write_buffer_size() + len(self._early)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Ask the protocol to pause above ``high`` waiting bytes and to resume at ``low``."""
        self._below.set_write_buffer_limits(high=high, low=low)

    def pause_reading(self) -> None:
        """Read no more for now."""
        self._below.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        self._below.resume_reading()

    def is_closing(self) -> bool:
        """Whether the transport is closed or about to be."""
        return self._closing or self._below.is_closing()

    def close(self) -> None:
        """Close behind the written bytes. Bytes that wait for the handshake are lost."""
        if not self._closing:
            if self.session is not None and not self._eof:
                self._say_end()
            self._closing = True
            self._below.close()

    def abort(self) -> None:
        """Close at once."""
        self._closing = True
        if self._raw is not None:
            self._raw.abort()

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol."""
        return self._above

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Give bytes that arrive from now on to another protocol."""
        self._protocol = cast("asyncio.Protocol", protocol)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the transport below knows of the connection."""
        return self._below.get_extra_info(name, default)

    # -- inside -----------------------------------------------------------------------------------------------------

    @property
    def _below(self) -> asyncio.Transport:
        assert self._raw is not None  # the protocol has this transport since there is a connection
        return self._raw

    @property
    def _above(self) -> asyncio.Protocol:
        assert self._protocol is not None  # it is made before the handshake is done
        return self._protocol

    def _tell(self) -> None:
        self._protocol = self._make()
        self._protocol.connection_made(self)

    def _shake_hands(self) -> None:
        """Take the next step of the handshake, as far as bytes have come."""
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            self._send_out()
            return
        except (ssl.SSLError, ValueError) as error:
            self._fail(_reason(error), error)
            return
        self._send_out()
        if self._object.selected_alpn_protocol() != self._tls.alpn:
            self._fail(f"the other side does not choose the protocol {self._tls.alpn} (ALPN)")
            return
        if self._listening and self._object.session_reused and self._tls.context.verify_mode is ssl.CERT_REQUIRED:
            self._fail("it resumes a session, which would skip the look at its certificate")
            return
        self.session = self._describe()
        if self._opened is not None:
            self._tell()
            if not self._opened.done():
                self._opened.set_result(None)
        elif self._early:
            early, self._early = self._early, b""
            self.write(early)
            if self._ends_early:
                self.write_eof()

    def _describe(self) -> TlsSession:
        tls_object = self._object
        if self._listening:
            assert self._tls.certificate is not None  # a listener has one
            binding = self._tls.certificate.digest
        else:
            from hashlib import sha256  # noqa: PLC0415  # it loads OpenSSL's hashes, and a plain connection needs none

            binding = sha256(cast("bytes", tls_object.getpeercert(binary_form=True))).digest()
        named = cast("dict[str, Any]", tls_object.getpeercert() or {}).get("subjectAltName", ())
        names = tuple(name for kind, name in named if kind in {"URI", "DNS"})
        cipher = tls_object.cipher()
        return TlsSession(tls_object.version() or "", cipher[0] if cipher else "", binding, names)

    def _read(self) -> None:
        """Hand on the bytes inside of all records that are whole."""
        while (self._into.pending or self._object.pending()) and self._read_once():
            pass

    def _read_once(self) -> bool:
        """Hand on as many of them as the buffer has room for; return whether there may be more."""
        place: memoryview | None = getattr(_of_this_thread, "place", None)
        if place is None:
            # A part of a record may have come with the read before.
            place = _of_this_thread.place = memoryview(bytearray(READ_SIZE_MAX + _RECORD_SIZE_MAX))
        into, tls_object, size = self._into, self._object, 0
        ended, failure = False, None
        try:
            while size < len(place) and (into.pending or tls_object.pending()):
                taken = tls_object.read(len(place) - size, place[size:])
                if not taken:
                    ended = True
                    break
                size += cast("int", taken)
        except ssl.SSLWantReadError:
            pass  # a record is not whole
        except ssl.SSLZeroReturnError:
            ended = True
        except ssl.SSLError as error:
            failure = error
        if self._out.pending:
            self._send_owed()
        if size:
            self._above.data_received(place[:size].tobytes())
        if failure is not None:
            self._fail(_reason(failure), failure)
        elif ended and not self._closing and not self._eof and not self._above.eof_received():
            self.close()
        return size == len(place) and not self._closing and not self._eof

    def _send_out(self) -> None:
        """Write all that TLS has made."""
        data = self._out.read()
        if data and not self._below.is_closing():
            self._below.write(data)

    def _send_owed(self) -> None:
        """Send what TLS itself has to say: an answer to a request for another key, say."""
        size = self._out.pending
        self._send_out()
        self._owed = self._owed + size if self._below.get_write_buffer_size() else 0
        if self._owed > TLS_OWED_MAX:
            self._error = TlsFailed("it asks TLS for answers and does not read them", in_handshake=False)
            self.abort()

    def _say_end(self) -> None:
        try:
            self._object.unwrap()
        except ssl.SSLError:
            pass  # the end of the other side has not come, and is not waited for
        self._send_out()

    def _end_sending(self) -> None:
        self._eof = True
        raw = self._below
        if not raw.is_closing() and raw.can_write_eof():
            try:
                raw.write_eof()
            except OSError:  # the other side has gone in this instant
                raw.abort()

    def _refuse_foreign(self, data: bytes) -> None:
        foreign = self._judge(data)
        self._fail(foreign.reason, answer=foreign.answer)

    def _fail(self, reason: str, cause: Exception | None = None, *, answer: bytes = b"") -> None:
        """End the connection, and give the other side a second to read why."""
        if self._error is not None:
            return
        said = getattr(cause, "reason", None) or ""
        refused = not self._listening and said.endswith(_REFUSALS)
        self._error = TlsFailed(reason, in_handshake=self.session is None or refused)
        self._error.__cause__ = cause
        if self._on_failure is not None:
            self._on_failure()
        raw = self._below
        if raw.is_closing():
            return
        raw.write(self._out.read() + answer)
        if self._listening:
            self._end_sending()
            self._linger = self._loop.call_later(TLS_LINGER_S, raw.abort)
        else:
            self._closing = True
            raw.close()


def _reason(error: Exception) -> str:
    """Return the reason of an error of OpenSSL, which says in whose words it is."""
    reason = getattr(error, "reason", None) or ""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message}"
    marker = "_ALERT_"
    if marker in reason:
        return f"it has refused TLS: {reason.partition(marker)[2].lower().replace('_', ' ')}"
    return f"TLS has failed: {explain(error)}"
