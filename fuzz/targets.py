"""The fuzz targets: each `check(data)` takes any bytes, and raises if something is not as it must be.

They need no fuzzer. `fuzz.run` drives them; the tests give them what is in `fuzz/corpus`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeVar

import msgspec

from fuzz import reference
from fuzz.cafe import check_cafe
from fuzz.conversation import (
    WRITE_SIZE,
    Application,
    Options,
    config,
    outline,
    peer_config,
    pieces,
    shake,
)
from fuzz.dialects import check_requests
from fuzz.entrance import check_entrance
from fuzz.identity import check_plain, check_scram
from fuzz.mutators import (
    OPTIONS_SIZE,
    Mutator,
    mutate_any,
    mutate_backup,
    mutate_commands,
    mutate_compressed,
    mutate_frames,
    mutate_messagepack,
    mutate_segment,
    mutate_signed_frames,
)
from fuzz.store import check_arguments, check_backup, check_commands, check_log, check_pieces
from haptera.connection import Config, Connection, Role
from haptera.connection.events import Closed, Event
from haptera.connection.handshake import answer_hello, check_welcome, make_hello
from haptera.errors import ConfigurationError, Failure, RemoteProtocolError, ServerError
from haptera.transport import parse
from haptera.wire.compression import Codec
from haptera.wire.decoder import FrameDecoder
from haptera.wire.frame import HANDSHAKE_FRAME_SIZE_MAX, encode_frame
from haptera.wire.metadata import decode_entries, decode_route, encode_entry, encode_route, route_length
from haptera.wire.payload import (
    LIMITS,
    Goaway,
    Hello,
    Welcome,
    decode_failure,
    decode_open_map,
    decode_payload,
    encode_payload,
)

_T = TypeVar("_T")
#: The largest frame that the decoder's target announces: small, so that inputs reach it.
MAX_FRAME: Final = 20_000
#: Bytes that come one by one in one of the ways: a few headers.
SINGLE_BYTES: Final = 150
SIGNING_KEY: Final = bytes(range(32))
SIZE_MAX: Final = 16 * 1024
#: Bytes at the head of an input of the compression's target: enough to announce more than any frame may hold.
RAW_LENGTH_SIZE: Final = 3


def _attempt(codes: frozenset[int], function: Callable[..., _T], *arguments: Any) -> _T | None:
    """The result, or None for an error with one of these codes; everything else is a finding."""
    try:
        return function(*arguments)
    except RemoteProtocolError as error:
        assert error.code in codes, f"{error.code} is none of {sorted(codes)}"
        assert encode_payload(error.failure("unknown"))
        return None


# -- wire ------------------------------------------------------------------------------------------------------------


def check_decoder(data: bytes) -> None:
    """Any bytes in any pieces are the frames, and then the fault, that the specification says."""
    options, data = Options(data[:OPTIONS_SIZE]), data[OPTIONS_SIZE:]
    expected, code = reference.decode(data, MAX_FRAME)
    cut = list(pieces(data, options.seed))
    singly = [*(data[at : at + 1] for at in range(min(len(data), SINGLE_BYTES))), data[SINGLE_BYTES:]]
    for each in ([data], cut, singly):
        decoder = FrameDecoder(MAX_FRAME)
        frames = []
        for piece in each:
            frames += decoder.receive(piece)
            frames += decoder.receive(b"")  # the first frame comes alone
            assert decoder.held <= len(data)
        found = [
            (frame.type, frame.flags, frame.stream, frame.metadata, frame.payload, frame.body_crc, frame.damaged)
            for frame in frames
        ]
        assert found == [
            (each.type, each.flags, each.stream, each.metadata, each.payload, each.body_crc, each.damaged)
            for each in expected
        ]
        assert (decoder.error.code if decoder.error is not None else 0) == code
        again = b"".join(
            encode_frame(frame.type, frame.flags, frame.stream, frame.metadata, frame.payload)
            for frame in frames
            if not frame.damaged
        )
        if not any(frame.damaged for frame in frames):
            assert data.startswith(again)


def check_compression(data: bytes) -> None:
    """Any bytes are a payload of just the length that was announced, or 1010."""
    raw_length = int.from_bytes(data[:RAW_LENGTH_SIZE], "big")
    payload = _attempt(frozenset({1010}), Codec().decompress, data[RAW_LENGTH_SIZE:], raw_length)
    if payload is not None:
        assert len(payload) == raw_length
        assert Codec().decompress(Codec().compress(payload), raw_length) == payload


def check_metadata(data: bytes) -> None:
    """Any metadata is a route and entries, or the error that says why not; what is kept is kept as it was."""
    entries = _attempt(frozenset({1002, 1007}), decode_entries, data)
    if entries is not None:
        assert decode_entries(b"".join(encode_entry(tag, value) for tag, value in entries.items())) == entries
    length = _attempt(frozenset({1002}), route_length, data)
    if length is not None:
        assert 2 <= length <= len(data)
        names = _attempt(frozenset({1002}), decode_route, data[:length])
        if names is not None:
            assert encode_route(*names) == data[:length]
        _attempt(frozenset({1002, 1007}), decode_entries, data, length)


def check_handshake(data: bytes) -> None:
    """Any payload of the protocol itself is read, or is 1002; any HELLO and WELCOME is answered or refused."""
    kind, payload = data[0] % 5 if data else 0, data[1:]
    only_malformed = frozenset({1002})
    signed = bool(data) and data[0] >= 128
    options = Options(bytes(2))
    match kind:
        case 0:
            hello = _attempt(only_malformed, decode_payload, Hello, payload)
            if hello is not None:
                assert decode_payload(Hello, encode_payload(hello)) == hello
                own = config(options, Role.ACCEPTOR, signing_key=SIGNING_KEY if signed else None)
                answer = _attempt(frozenset({1001, 1011}), answer_hello, own, hello, None)
                if answer is not None:
                    welcome, _, agreement = answer
                    assert len(encode_payload(welcome)) <= HANDSHAKE_FRAME_SIZE_MAX
                    assert agreement.capabilities <= set(own.offered_capabilities()) & set(hello.capabilities)
                    _check_limits(agreement.peer_limits)
                    assert check_welcome(hello, welcome).capabilities == agreement.capabilities
        case 1:
            received = _attempt(only_malformed, decode_payload, Welcome, payload)
            if received is not None:
                assert decode_payload(Welcome, encode_payload(received)) == received
                own = Config(entropy=_entropy, grease=False, signing_key=SIGNING_KEY if signed else None)
                hello, _ = make_hello(own, None)
                agreed = _attempt(frozenset({1008, 1011}), check_welcome, hello, received)
                if agreed is not None:
                    assert agreed.capabilities <= set(hello.capabilities)
                    _check_limits(agreed.peer_limits)
        case 2:
            goaway = _attempt(only_malformed, decode_payload, Goaway, payload)
            assert goaway is None or decode_payload(Goaway, encode_payload(goaway)) == goaway
        case 3:
            said = _attempt(only_malformed, decode_failure, payload)
            if said is not None:
                # As bytes: a NaN among the details equals nothing.
                assert encode_payload(decode_failure(encode_payload(said))) == encode_payload(said)
                _check_exception(said)
        case _:
            _attempt(only_malformed, decode_open_map, payload)


def _entropy(size: int) -> bytes:
    """The session that the WELCOMEs of the corpus answer."""
    return bytes(range(size))


def _check_limits(limits: Any) -> None:
    for name, limit in LIMITS.items():
        assert limit.minimum <= getattr(limits, name) <= limit.maximum


def _check_exception(said: Failure) -> None:
    error = said.exception()
    assert isinstance(error, ServerError)
    assert isinstance(str(error) + repr(error), str)


# -- connection ------------------------------------------------------------------------------------------------------


def check_acceptor(data: bytes) -> None:
    """An acceptor behind its handshake, against anything that a dialer may send."""
    _check_connection(Role.ACCEPTOR, data)


def check_dialer(data: bytes) -> None:
    """A dialer behind its handshake, against anything that an acceptor may send."""
    _check_connection(Role.DIALER, data)


def _check_connection(role: Role, data: bytes) -> None:
    options, data = Options(data[:OPTIONS_SIZE]), data[OPTIONS_SIZE:]
    cut = list(pieces(data, options.seed))
    application = Application(role, options)
    application.run(cut if options.cut else [data])
    # What a peer has said means the same however it was cut; unless time passes, or credit goes back, in between.
    if options.passive and not options.timed and not options.tiny:
        other = Application(role, options)
        other.run([data] if options.cut else cut)
        assert outline(application.events) == outline(other.events)


def check_hello(data: bytes) -> None:
    """An acceptor that has met nobody, against anything."""
    _check_handshake(Role.ACCEPTOR, data)


def check_welcome_frame(data: bytes) -> None:
    """A dialer with a first flight behind its HELLO, against anything."""
    _check_handshake(Role.DIALER, data)


def _check_handshake(role: Role, data: bytes) -> None:
    options, data = Options(data[:OPTIONS_SIZE]), data[OPTIONS_SIZE:]
    outlines = []
    for each in ([data], list(pieces(data, options.seed))):
        connection = Connection(role, config(options, role), 0.0)
        if role is Role.DIALER:
            connection.request("s", "m", b"first flight")
            connection.data_to_send(WRITE_SIZE)
        events: list[Event] = []
        for piece in each:
            events += connection.receive_data(piece, 0.0)
        events += connection.tick(1000.0)
        events += connection.receive_eof()
        connection.data_to_send(WRITE_SIZE)
        assert sum(isinstance(event, Closed) for event in events) == 1
        outlines.append(outline(events))
    assert outlines[0] == outlines[1]


def check_signed(data: bytes) -> None:
    """Nobody without the key says anything on a signed connection: what is understood is what was really sent."""
    options, data = Options(data[:OPTIONS_SIZE]), data[OPTIONS_SIZE:]
    role = Role(options.seed & 1)
    honest = _signed_events(role, record_signed(role))
    found = _signed_events(role, data)
    closed = found.pop()
    assert isinstance(closed, Closed)
    if closed.error is not None:
        assert closed.error.code in {1002, 1003, 1004, 1011}
    assert found == honest[: len(found)]


def _signed_pair() -> tuple[Connection, Connection]:
    dialer, acceptor = (
        Connection(role, msgspec.structs.replace(peer_config(), entropy=_entropy, signing_key=SIGNING_KEY), 0.0)
        for role in (Role.DIALER, Role.ACCEPTOR)
    )
    shake(dialer, acceptor)
    return dialer, acceptor


def _signed_events(role: Role, data: bytes) -> list[Event]:
    """What a side of a signed connection learns from bytes, without what it says when they end."""
    pair = _signed_pair()
    connection = pair[0] if role is Role.DIALER else pair[1]
    if role is Role.DIALER:
        connection.request("s", "m", b"mine")
    events = connection.receive_data(data, 0.0)
    return events + connection.receive_eof()


@cache
def record_signed(role: Role) -> bytes:
    """What an honest peer sends to the side `role` of a signed connection."""
    dialer, acceptor = _signed_pair()
    dialer.request("s", "m", b"mine")
    if role is Role.DIALER:
        acceptor.receive_data(dialer.data_to_send(WRITE_SIZE), 0.0)
        acceptor.send_item(1, b"an item")
        acceptor.respond(1, b"the answer")
        acceptor.request("s", "m", b"yours")
        return acceptor.data_to_send(WRITE_SIZE)
    stream = dialer.request("s", "m", bytes(1500), streaming=True)
    dialer.send_item(stream, b"an item")
    dialer.finish(stream)
    dialer.ping(bytes(8))
    dialer.cancel(1)
    return dialer.data_to_send(WRITE_SIZE)


# -- addresses -------------------------------------------------------------------------------------------------------

MARK: Final = "hunter2hunter2"


def check_address(data: bytes) -> None:
    """Any text is an address or a ConfigurationError, and neither shows the password."""
    url = data.decode("utf-8", "surrogateescape")
    rest = url.partition("://")[2]
    try:
        address = parse(url)
    except ConfigurationError as error:
        # What is malformed may have a password with signs that end an authority elsewhere.
        secret = _has_marked_password(rest) and MARK not in url.partition("://")[0]
        shown: BaseException | None = error
        while shown is not None:
            assert not secret or MARK not in f"{shown} {shown!r}", "an error shows the password"
            shown = shown.__cause__ or shown.__context__
        return
    if _has_marked_password(re.split(r"[/?#]", rest)[0]) and url.count(MARK) == 1:
        assert MARK not in f"{address} {address!r}", "an address shows its password"
    again = parse(str(address))
    hidden = None if address.password is None else "***"
    assert again == msgspec.structs.replace(address, password=hidden), "an address is not what it says"
    assert all(0 <= port <= 65535 for _, port in address.hosts)


def _has_marked_password(text: str) -> bool:
    credential, at, place = text.rpartition("@")
    user, _, password = credential.partition(":")
    return bool(at) and MARK in password and MARK not in user and MARK not in place


# -- all -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """A target: what checks an input, and what makes a new one of it."""

    check: Callable[[bytes], None]
    mutate: Mutator = mutate_any
    size_max: int = SIZE_MAX


#: The targets of what a stranger may send before it has proved who it is, and of what a client reads before its server
#: has.
BEFORE_AUTHENTICATION: Final = (
    "decoder",
    "hello",
    "welcome",
    "acceptor",
    "dialer",
    "signed",
    "compression",
    "metadata",
    "handshake",
    "scram",
    "plain",
    "entrance",
)

TARGETS: Final[dict[str, Target]] = {
    "decoder": Target(check_decoder, mutate_frames),
    "hello": Target(check_hello, mutate_frames),
    "welcome": Target(check_welcome_frame, mutate_frames),
    "acceptor": Target(check_acceptor, mutate_frames, 48 * 1024),
    "dialer": Target(check_dialer, mutate_frames, 48 * 1024),
    "signed": Target(check_signed, mutate_signed_frames),
    "compression": Target(check_compression, mutate_compressed),
    "metadata": Target(check_metadata, mutate_any, 4096),
    "handshake": Target(check_handshake, mutate_messagepack),
    "arguments": Target(check_arguments, mutate_messagepack),
    "commands": Target(check_commands, mutate_commands),
    "pieces": Target(check_pieces, mutate_messagepack),
    "log": Target(check_log, mutate_segment, 4096),
    "backup": Target(check_backup, mutate_backup, 8192),
    "address": Target(check_address, mutate_any, 512),
    "scram": Target(check_scram, mutate_any, 4200),
    "plain": Target(check_plain, mutate_any, 1400),
    "cafe": Target(check_cafe, mutate_any, 8192),
    "entrance": Target(check_entrance, mutate_frames, 96 * 1024),
    "resp": Target(check_requests, mutate_any, 2048),
}
