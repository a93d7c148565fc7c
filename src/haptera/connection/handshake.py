"""HELLO and WELCOME, by which the two sides agree (spec/protocol.md, section 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from haptera.connection.checks import check_control, misplaced
from haptera.connection.config import (
    PING_INTERVAL_MS,
    PRESHARED_KEY,
    SESSION_SERVICE,
    SIGNING,
    SIGNING_EXCHANGE,
    Config,
)
from haptera.errors import Code, RemoteProtocolError
from haptera.wire import (
    LIMITS,
    NONCE_SIZE,
    SESSION_SIZE,
    Frame,
    FrameType,
    Hello,
    Limits,
    Welcome,
    decode_payload,
    encode_frame,
    encode_payload,
    preshared_keys,
)

if TYPE_CHECKING:
    from haptera.connection.grease import Grease


class Agreement(msgspec.Struct, frozen=True):
    """The terms of a connection after its handshake."""

    version: int
    capabilities: frozenset[str]
    peer_agent: str
    peer_limits: Limits
    peer_services: tuple[str, ...]
    mechanisms: tuple[str, ...]
    server_id: bytes
    session: bytes
    ping_interval_ms: int
    idempotency_ms: int


class Handshake:
    """One side's part in the handshake.

    ``sent`` is its own frame: the dialer's HELLO from the beginning, the acceptor's WELCOME once ``receive`` has taken
    HELLO. ``mechanisms`` gives an acceptor's for this one dialer; they are its configuration's where it is None.
    """

    def __init__(self, config: Config, grease: Grease | None, *, dials: bool) -> None:
        self.sent: bytes = b""
        self.mechanisms: Callable[[], Sequence[str]] | None = None
        self._config = config
        self._grease = grease
        self._received = b""
        self._hello: Hello | None = None
        if dials:
            self._hello, extra = make_hello(config, grease)
            self.sent = encode_frame(FrameType.HELLO, 0, 0, b"", encode_payload(self._hello, extra))

    def receive(self, frame: Frame) -> Agreement:
        """Take the other side's first frame and return the agreed terms. Raises an error that ends the connection."""
        expected = FrameType.HELLO if self._hello is None else FrameType.WELCOME
        if frame.type != expected:
            raise misplaced(frame, f"the first frame is not {expected.name}")
        check_control(frame)
        self._received = encode_frame(frame.type, frame.flags, frame.stream, frame.metadata, frame.payload)
        if self._hello is not None:
            welcomed = decode_payload(Welcome, frame.payload)
            return check_welcome(self._hello, welcomed, by_exchange=self._config.signs_by_exchange)
        hello = decode_payload(Hello, frame.payload)
        asked = None if self._config.signs else self.mechanisms
        offered = None if asked is None else list(asked())
        welcome, extra, agreement = answer_hello(self._config, hello, self._grease, offered)
        self.sent = encode_frame(FrameType.WELCOME, 0, 0, b"", encode_payload(welcome, extra))
        return agreement

    @property
    def transcript(self) -> tuple[bytes, bytes]:
        """HELLO and WELCOME as they were sent, from magic to the end of the payload."""
        return (self._received, self.sent) if self._hello is None else (self.sent, self._received)

    def keys(self, agreement: Agreement) -> tuple[bytes, bytes] | None:
        """Return the dialer's and the acceptor's key of the frames behind the handshake; None if these are not signed,
        or not yet.
        """
        if SIGNING not in agreement.capabilities or self._config.signing_key is None:
            return None
        return preshared_keys(self._config.signing_key, *self.transcript)


def needs_proof(agreement: Agreement) -> bool:
    """Whether an acceptor serves a dialer only after an exchange."""
    return bool(agreement.mechanisms) and agreement.mechanisms != (PRESHARED_KEY,)


def make_hello(config: Config, grease: Grease | None) -> tuple[Hello, dict[str, Any]]:
    """Return a dialer's HELLO and the grease keys that go with it."""
    capabilities = config.offered_capabilities()
    extra: dict[str, Any] = {}
    if grease is not None:
        capabilities.insert(config.entropy(1)[0] % (len(capabilities) + 1), grease.name())
        extra[grease.name()] = config.entropy(3)
    hello = Hello(
        versions=list(config.versions),
        agent=config.agent,
        session=config.entropy(SESSION_SIZE),
        nonce=config.entropy(NONCE_SIZE),
        capabilities=capabilities,
        services=config.announced_services(),
        **_limits_of(config.limits),
    )
    return hello, extra


def answer_hello(
    config: Config, hello: Hello, grease: Grease | None, mechanisms: list[str] | None = None
) -> tuple[Welcome, dict[str, Any], Agreement]:
    """Return an acceptor's WELCOME, its grease keys, and the terms agreed by it. The ``mechanisms`` are those of the
    configuration unless they are given.

    Raises 1001 if the two sides have no version in common, 1011 if this one must sign and the dialer would not.
    """
    common = set(config.versions).intersection(hello.versions)
    if not common:
        raise RemoteProtocolError(
            Code.UNSUPPORTED_VERSION,
            "the two sides have no protocol version in common",
            {"versions": sorted(config.versions)},
        )
    asked = set(hello.capabilities)
    if config.signs and SIGNING not in asked:
        raise RemoteProtocolError(Code.SIGNATURE_MISMATCH, "HELLO does not ask for signed frames")
    accepted = [name for name in config.offered_capabilities() if name in asked]
    if mechanisms is None:
        mechanisms = config.offered_mechanisms()
    welcome = Welcome(
        version=max(common),
        versions=list(config.versions),
        agent=config.agent,
        server_id=config.server_id,
        session=hello.session,
        nonce=config.entropy(NONCE_SIZE),
        capabilities=accepted,
        services=[SESSION_SERVICE] if mechanisms and not config.signing_key else config.announced_services(),
        mechanisms=mechanisms,
        ping_interval_ms=PING_INTERVAL_MS if config.ping_interval_ms is None else config.ping_interval_ms,
        idempotency_ms=config.idempotency_ms,
        **_limits_of(config.limits),
    )
    extra = {grease.name(): config.entropy(3)} if grease is not None else {}
    return welcome, extra, _agreement(hello, welcome, hello)


def check_welcome(hello: Hello, welcome: Welcome, *, by_exchange: bool = False) -> Agreement:
    """Return the terms that an acceptor agreed to. Signed frames are ``by_exchange``, or by a pre-shared key.

    Raises 1008 if its WELCOME is no answer to ``hello``, 1011 if ``hello`` asks for signed frames and it would not.
    """
    common = set(hello.versions).intersection(welcome.versions)
    if not common or welcome.version != max(common):
        raise RemoteProtocolError(
            Code.PROTOCOL_VIOLATION,
            "WELCOME does not choose the highest version that both sides speak",
            {"chosen": welcome.version},
        )
    surplus = set(welcome.capabilities).difference(hello.capabilities)
    if surplus:
        raise RemoteProtocolError(
            Code.PROTOCOL_VIOLATION, "WELCOME accepts what HELLO did not ask for", {"capability": min(surplus)[:64]}
        )
    if welcome.session != hello.session:
        raise RemoteProtocolError(Code.PROTOCOL_VIOLATION, "WELCOME answers another HELLO")
    way = SIGNING_EXCHANGE if by_exchange else PRESHARED_KEY
    if SIGNING in hello.capabilities and not (SIGNING in welcome.capabilities and welcome.mechanisms == [way]):
        by = "an exchange" if by_exchange else "a pre-shared key"
        raise RemoteProtocolError(Code.SIGNATURE_MISMATCH, f"WELCOME does not accept signed frames with {by}")
    return _agreement(hello, welcome, welcome)


def _agreement(hello: Hello, welcome: Welcome, peer: Hello | Welcome) -> Agreement:
    return Agreement(
        version=welcome.version,
        capabilities=frozenset(welcome.capabilities),
        peer_agent=peer.agent,
        peer_limits=Limits(**_limits_of(peer)).clamped(),
        peer_services=tuple(peer.services),
        mechanisms=tuple(welcome.mechanisms),
        server_id=welcome.server_id,
        session=hello.session,
        ping_interval_ms=welcome.ping_interval_ms,
        idempotency_ms=welcome.idempotency_ms,
    )


def _limits_of(limits: Limits) -> dict[str, int]:
    return {name: getattr(limits, name) for name in LIMITS}
