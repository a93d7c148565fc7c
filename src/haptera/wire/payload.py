"""The MessagePack payloads that belong to the protocol itself: handshake, errors, GOAWAY (spec/protocol.md, 4 and 6).

All of them are maps that later versions may add keys to, so they are decoded as open maps first and then checked
against this version's knowledge.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeVar, get_args

import msgspec

from haptera.errors import Code, Failure, Outcome, RemoteProtocolError

#: Deepest nesting of a payload whose type is open, so that no peer can exhaust the stack of another.
NESTING_MAX: Final = 32
SESSION_SIZE: Final = 16
NONCE_SIZE: Final = 32
SERVER_ID_SIZE: Final = 16


class Limit(msgspec.Struct, frozen=True):
    """The bounds of one limit that the handshake announces, in the unit of that limit."""

    minimum: int
    default: int
    maximum: int

    def clamp(self, value: int) -> int:
        """Read a value outside the bounds as the bound (section 4)."""
        return min(max(value, self.minimum), self.maximum)


#: Integers are unsigned (section 1). A limit is not checked but read as its bound.
_Unsigned = Annotated[int, msgspec.Meta(ge=0)]

_KIB: Final = 1024
_MIB: Final = 1024 * _KIB
LIMITS: Final[dict[str, Limit]] = {
    "max_frame": Limit(16 * _KIB, 64 * _KIB, 16 * _MIB),
    "max_message": Limit(64 * _KIB, 16 * _MIB, 1024 * _MIB),
    "stream_window": Limit(16 * _KIB, 256 * _KIB, 16 * _MIB),
    "connection_window": Limit(64 * _KIB, 1 * _MIB, 64 * _MIB),
    "max_streams": Limit(64, 1024, 65535),
}


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of what one side accepts from the other: sizes and windows in bytes, streams as a count."""

    max_frame: int = LIMITS["max_frame"].default
    max_message: int = LIMITS["max_message"].default
    stream_window: int = LIMITS["stream_window"].default
    connection_window: int = LIMITS["connection_window"].default
    max_streams: int = LIMITS["max_streams"].default

    def clamped(self) -> Limits:
        """Return these limits with each one inside its bounds."""
        return Limits(**{name: limit.clamp(getattr(self, name)) for name, limit in LIMITS.items()})


class Hello(Limits, frozen=True, kw_only=True):
    """The dialer's first frame (section 4)."""

    versions: list[int]
    agent: str
    session: bytes
    nonce: bytes
    capabilities: list[str] = []
    services: list[str] = []


class Welcome(Limits, frozen=True, kw_only=True):
    """The acceptor's answer to HELLO (section 4)."""

    version: int
    versions: list[int]
    agent: str
    server_id: bytes
    session: bytes
    nonce: bytes
    capabilities: list[str] = []
    services: list[str] = []
    mechanisms: list[str] = []
    ping_interval_ms: _Unsigned = 30_000
    idempotency_ms: _Unsigned = 600_000


class Goaway(msgspec.Struct, frozen=True, kw_only=True):
    """The payload of GOAWAY: why, and the last stream of the peer that will be answered."""

    code: int
    name: str
    message: str
    last_stream: _Unsigned


_Payload = TypeVar("_Payload", Hello, Welcome, Goaway)
_encoder = msgspec.msgpack.Encoder()
_open_map_decoder = msgspec.msgpack.Decoder(dict[str, Any])
_decoders: Final[dict[type, msgspec.msgpack.Decoder[Any]]] = {
    type_: msgspec.msgpack.Decoder(type_) for type_ in (Hello, Welcome, Goaway)
}
# Nesting that no stack holds, text that is not UTF-8, keys that cannot be keys: not all of it is a DecodeError.
_DECODE_ERRORS: Final = (msgspec.DecodeError, RecursionError, ValueError, TypeError)

#: The outcomes that section 6 lets an ERROR name. Any other text tells nothing, as "unknown" does.
_OUTCOMES: Final[dict[str, Outcome]] = {outcome: outcome for outcome in get_args(Outcome)}


class _Error(msgspec.Struct, frozen=True):
    """The payload of ERROR as it comes: a ``Failure`` but for its outcome, which may be any text."""

    code: int
    name: str
    message: str
    outcome: str
    details: dict[str, Any]


_error_decoder = msgspec.msgpack.Decoder(_Error)


def encode_payload(payload: Hello | Welcome | Goaway | Failure, extra: dict[str, Any] | None = None) -> bytes:
    """Encode a protocol payload; ``extra`` adds keys that a receiver skips when it does not know them."""
    if extra:
        return _encoder.encode({**msgspec.structs.asdict(payload), **extra})
    return _encoder.encode(payload)


def decode_payload(type_: type[_Payload], data: bytes) -> _Payload:
    """Decode HELLO, WELCOME or GOAWAY. Raises 1002 for anything that is not exactly such a map."""
    decode_open_map(data)
    try:
        # From the bytes again, not from the map: a conversion would take text for bytes as base64.
        payload: _Payload = _decoders[type_].decode(data)
    except _DECODE_ERRORS as error:
        raise RemoteProtocolError(
            Code.MALFORMED_FRAME, f"a {type_.__name__.upper()} payload is malformed: {error}"
        ) from error
    if isinstance(payload, Hello | Welcome):
        _check_sizes(payload)
    return payload


def _check_sizes(payload: Hello | Welcome) -> None:
    sizes = [("session", payload.session, SESSION_SIZE), ("nonce", payload.nonce, NONCE_SIZE)]
    if isinstance(payload, Welcome):
        sizes.append(("server_id", payload.server_id, SERVER_ID_SIZE))
    for name, value, size in sizes:
        if len(value) != size:
            raise RemoteProtocolError(Code.MALFORMED_FRAME, f"{name} has {size} bytes, not {len(value)}")


def decode_failure(data: bytes) -> Failure:
    """Decode an ERROR's payload (section 6). Raises 1002 if it is malformed.

    An outcome that this version does not know is read as ``unknown``.
    """
    try:
        decoded = _error_decoder.decode(data)
    except _DECODE_ERRORS as error:
        raise RemoteProtocolError(Code.MALFORMED_FRAME, "an ERROR's payload is malformed") from error
    if nesting(decoded.details) >= NESTING_MAX:
        raise RemoteProtocolError(Code.MALFORMED_FRAME, "an ERROR's payload is nested too deeply")
    outcome = _OUTCOMES.get(decoded.outcome, "unknown")
    return Failure(decoded.code, decoded.name, decoded.message, outcome, decoded.details)


def decode_open_map(data: bytes) -> dict[str, Any]:
    """Decode a map whose keys are text and whose values may be of any type.

    Raises 1002 if it is malformed, has a key twice, is nested deeper than ``NESTING_MAX`` or has bytes behind it.
    """
    try:
        fields = _open_map_decoder.decode(data)
    except _DECODE_ERRORS as error:
        raise RemoteProtocolError(Code.MALFORMED_FRAME, "a payload is not one map with text keys") from error
    if map_size(data) != len(fields):
        raise RemoteProtocolError(Code.MALFORMED_FRAME, "a payload's map has a key twice")
    if nesting(fields) > NESTING_MAX:
        raise RemoteProtocolError(Code.MALFORMED_FRAME, "a payload is nested too deeply")
    return fields


def map_size(data: bytes) -> int:
    """Return how many pairs the map that begins ``data`` claims to have; -1 if no map begins it.

    A decoder keeps only the last of several equal keys, so the claim differs from the decoded map when one is doubled.
    """
    first = data[0] if data else 0
    if 0x80 <= first <= 0x8F:
        return first & 0x0F
    if first == 0xDE:
        return int.from_bytes(data[1:3], "big")
    if first == 0xDF:
        return int.from_bytes(data[1:5], "big")
    return -1


def nesting(value: object) -> int:
    """Return how many containers are nested in ``value``, itself included: 0 for a scalar."""
    depth = 0
    level = [value]
    while True:
        inner: list[object] = []
        containers = 0
        for each in level:
            if isinstance(each, dict):
                containers += 1
                inner.extend(each.keys())
                inner.extend(each.values())
            elif isinstance(each, list | tuple):
                containers += 1
                inner.extend(each)
        if not containers:
            return depth
        depth += 1
        if depth > NESTING_MAX:
            return depth
        level = inner
