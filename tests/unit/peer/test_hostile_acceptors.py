"""Acceptors that do not know the user, as a dialler with a credential meets them (spec/protocol.md, section 5)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from haptera import dial
from haptera.errors import (
    AuthenticationFailed,
    Code,
    ConnectionLost,
    DeadlineExceeded,
    RemoteProtocolError,
    SignatureMismatch,
    UnsupportedMechanism,
    failure,
)
from haptera.security import ScramAcceptor, Verifier, link_binding, verifier_of
from haptera.testing import virtual_clock
from haptera.wire.decoder import FrameDecoder
from haptera.wire.frame import Frame, FrameType, encode_frame
from haptera.wire.payload import encode_payload
from tests.unit.peer.hosts import Gate
from tests.unit.peer.raw import request
from tests.unit.peer.users import ITERATIONS, NAME, PASSWORD, VERIFIER

SCRAM = "SCRAM-SHA-256"
#: Answers a REQUEST on a stream with frames.
Answer = Callable[["Impostor", int, bytes], bytes]


class Impostor:
    """Answers HELLO as it should, and the steps of an exchange as a test wants."""

    def __init__(self, answer: Answer, fields: dict[str, Any], verifier: Verifier) -> None:
        self.scram: ScramAcceptor | None = None
        self.hello = self.welcome = b""
        self.verifier = verifier
        self.received: list[Frame] = []
        self._answer = answer
        self._fields = fields

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        decoder = FrameDecoder(64 * 1024)
        try:
            while data := await reader.read(65536):
                for frame in decoder.receive(data) + decoder.receive(b""):
                    writer.write(self._take(frame))
        finally:
            writer.close()

    def _take(self, frame: Frame) -> bytes:
        if frame.type == FrameType.HELLO:
            self.hello = encode_frame(frame.type, frame.flags, 0, frame.metadata, frame.payload)
            asked = msgspec.msgpack.decode(frame.payload)
            told = {
                "version": 1,
                "versions": [1],
                "agent": "impostor/1",
                "server_id": bytes(16),
                "session": asked["session"],
                "nonce": bytes(32),
                "capabilities": ["pipelining"],
                "mechanisms": [SCRAM],
                **self._fields,
            }
            self.welcome = encode_frame(FrameType.WELCOME, 0, 0, b"", msgspec.msgpack.encode(told))
            return self.welcome
        self.received.append(frame)
        if frame.type != FrameType.REQUEST or b"authenticate" not in frame.metadata:
            return b""
        return self._answer(self, frame.stream, msgspec.msgpack.decode(frame.payload)[1])

    def challenge(self, message: bytes) -> bytes:
        self.scram = ScramAcceptor(link_binding(self.hello, self.welcome, bytes(32)), "a" * 24)
        self.scram.receive_first(message)
        return self.scram.challenge(self.verifier, admitted=True)


def response(stream: int, done: bool, message: bytes) -> bytes:
    return encode_frame(FrameType.RESPONSE, 0, stream, b"", msgspec.msgpack.encode([done, message]))


@asynccontextmanager
async def impostor(
    answer: Answer, *, verifier: Verifier = VERIFIER, **fields: Any
) -> AsyncIterator[tuple[str, Impostor]]:
    one = Impostor(answer, fields, verifier)
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"haptera://127.0.0.1:{port}", one
    finally:
        server.close()


async def refused(url: str) -> ConnectionLost:
    """The error of a call by a dialler with a credential, before which no answer has come."""
    async with dial(url, user=NAME, password=PASSWORD) as peer:
        with pytest.raises(ConnectionLost) as caught:
            await peer.call("echo", "one", b"x")
    return caught.value


def says_done(one: Impostor, stream: int, message: bytes) -> bytes:
    return response(stream, True, b"v=" + b"A" * 43 + b"=")


def knows_nothing(one: Impostor, stream: int, message: bytes) -> bytes:
    """Challenges with any salt, and accepts any proof."""
    if stream == 1:
        return response(stream, False, one.challenge(message))
    return response(stream, True, b"v=" + b"A" * 43 + b"=")


def says_e(one: Impostor, stream: int, message: bytes) -> bytes:
    return response(stream, stream == 3, one.challenge(message) if stream == 1 else b"e=other-error")


def answers_first(one: Impostor, stream: int, message: bytes) -> bytes:
    return response(3, True, b"not yours") + response(stream, False, one.challenge(message))


def sends_items(one: Impostor, stream: int, message: bytes) -> bytes:
    return encode_frame(FrameType.ITEM, 0, 3, b"", b"x")


def weakens(one: Impostor, stream: int, message: bytes) -> bytes:
    first = one.challenge(message)
    return response(stream, False, first.replace(b"i=4096", b"i=4095"))


def forges_nonce(one: Impostor, stream: int, message: bytes) -> bytes:
    return response(stream, False, b"r=" + b"z" * 48 + one.challenge(message)[50:])


def malformed(one: Impostor, stream: int, message: bytes) -> bytes:
    return encode_frame(FrameType.RESPONSE, 0, stream, b"", b"\xc1")


def never_ends(one: Impostor, stream: int, message: bytes) -> bytes:
    return response(stream, False, one.challenge(message) if stream == 1 else b"again")


@virtual_clock
@pytest.mark.parametrize("answer", [says_done, knows_nothing, says_e, weakens, forges_nonce, malformed, never_ends])
async def test_an_acceptor_that_does_not_prove_itself_is_left(answer: Answer) -> None:
    async with impostor(answer) as (url, _):
        error = await refused(url)
        assert isinstance(error, AuthenticationFailed)
        assert "has not proved its identity" in str(error)
        assert PASSWORD not in str(error)


@virtual_clock
@pytest.mark.parametrize("answer", [answers_first, sends_items])
async def test_an_answer_before_the_proof_is_given_to_no_call(answer: Answer) -> None:
    async with impostor(answer) as (url, _):
        error = await refused(url)
        assert isinstance(error.__cause__, RemoteProtocolError)
        assert error.__cause__.code == 1008


@virtual_clock
async def test_a_refusal_before_the_proof_is_given_to_no_call() -> None:
    def refuses(one: Impostor, stream: int, message: bytes) -> bytes:
        said = {"code": 4001, "name": "KEY_NOT_FOUND", "message": "", "outcome": "not_applied", "details": {}}
        return encode_frame(FrameType.ERROR, 0, 3, b"", msgspec.msgpack.encode(said)) + knows_nothing(
            one, stream, message
        )

    async with impostor(refuses) as (url, _):
        assert isinstance(await refused(url), AuthenticationFailed)


ANSWERS = [Code.KEY_NOT_FOUND, Code.KEY_EXISTS, Code.VERSION_MISMATCH, Code.LEASE_NOT_FOUND, Code.USER_EXISTS]


def said(code: Code, stream: int) -> bytes:
    return encode_frame(FrameType.ERROR, 0, stream, b"", encode_payload(failure(code, outcome="not_applied")))


@virtual_clock
@pytest.mark.parametrize("code", [*ANSWERS, Code.PERMISSION_DENIED, Code.PASSWORD_POLICY, Code.INVALID_ARGUMENT])
@pytest.mark.parametrize("place", ["the connection", "the first message", "the last message"])
async def test_a_refusal_by_one_that_is_not_proved_is_no_answer(code: Code, place: str) -> None:
    def refuses(one: Impostor, stream: int, message: bytes) -> bytes:
        if place == "the last message" and stream == 1:
            return response(stream, False, one.challenge(message))
        return said(code, 0 if place == "the connection" else stream)

    async with impostor(refuses) as (url, _):
        error = await refused(url)
        assert type(error) is ConnectionLost
        assert error.failure is None
        assert code.name in str(error)


@virtual_clock
@pytest.mark.parametrize("signed", ["", "?signed=scram"])
async def test_an_end_before_welcome_is_no_answer(signed: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(said(Code.KEY_NOT_FOUND, 0))
        await writer.drain()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"haptera://127.0.0.1:{server.sockets[0].getsockname()[1]}{signed}"
        assert type(await refused(url)) is ConnectionLost


@virtual_clock
@pytest.mark.parametrize("code", [Code.AUTHENTICATION_LOCKED, Code.TOO_MANY_CONNECTIONS, Code.TOO_MANY_REQUESTS])
async def test_a_refusal_to_let_a_dialler_in_says_why(code: Code) -> None:
    async with impostor(lambda one, stream, message: said(code, stream)) as (url, _):
        error = await refused(url)
        assert error.failure is not None
        assert error.failure.code == code


@virtual_clock
async def test_a_dialler_serves_nothing_before_the_proof() -> None:
    def calls(one: Impostor, stream: int, message: bytes) -> bytes:
        if stream == 1:
            return request(2, "gate", "wait", b"x") + response(stream, False, one.challenge(message))
        return b""

    gate = Gate()
    async with (
        impostor(calls) as (url, _),
        dial(url, services=[gate], user=NAME, password=PASSWORD) as peer,
    ):
        with pytest.raises(DeadlineExceeded):
            await peer.call("echo", "one", b"x")
        assert gate.started == []


@virtual_clock
@pytest.mark.parametrize("mechanisms", [[], ["PLAIN"], ["EXTERNAL", "PLAIN"], ["SCRAM-SHA-1"]])
async def test_a_dialler_never_falls_to_another_mechanism(mechanisms: list[str]) -> None:
    async with impostor(knows_nothing, mechanisms=mechanisms) as (url, one):
        assert isinstance(await refused(url), UnsupportedMechanism)
        sent = b"".join(frame.payload for frame in one.received)
        assert PASSWORD.encode() not in sent
        assert not any(frame.stream == 3 and b"authenticate" in frame.metadata for frame in one.received)


@virtual_clock
async def test_an_acceptor_that_knows_the_verifier_of_another_password_is_found_out() -> None:
    async with impostor(knows_nothing, verifier=verifier_of("another", bytes(16), ITERATIONS)) as (url, _):
        assert isinstance(await refused(url), AuthenticationFailed)


@virtual_clock
@pytest.mark.parametrize(
    "fields",
    [
        {"capabilities": ["pipelining"]},
        {"capabilities": ["pipelining", "hmac_sha256"], "mechanisms": ["PSK"]},
        {"capabilities": ["pipelining", "hmac_sha256"], "mechanisms": [SCRAM, "PLAIN"]},
        {"capabilities": ["pipelining", "hmac_sha256"], "mechanisms": []},
    ],
)
async def test_a_dialler_that_signs_takes_no_welcome_that_would_not(fields: dict[str, Any]) -> None:
    async with impostor(knows_nothing, **fields) as (url, one):
        async with dial(url + "?signed=scram", user=NAME, password=PASSWORD) as peer:
            with pytest.raises(ConnectionLost) as caught:
                await peer.ready()
            assert isinstance(caught.value.__cause__, RemoteProtocolError)
            assert caught.value.__cause__.code == 1011
        assert not [frame for frame in one.received if frame.type == FrameType.REQUEST]


SIGNING: dict[str, Any] = {"capabilities": ["pipelining", "hmac_sha256"]}


@virtual_clock
@pytest.mark.parametrize(
    "injected",
    [
        encode_frame(FrameType.PING, 0, 0, b"", bytes(8)),
        request(2, "session", "describe", b"\x90"),
        encode_frame(0xF1, 0, 0, b"", b""),
    ],
)
async def test_a_frame_before_the_challenge_ends_a_connection_that_is_to_be_signed(injected: bytes) -> None:
    def injects(one: Impostor, stream: int, message: bytes) -> bytes:
        return injected + response(stream, False, one.challenge(message))

    async with (
        impostor(injects, **SIGNING) as (url, _),
        dial(url + "?signed=scram", user=NAME, password=PASSWORD) as peer,
    ):
        with pytest.raises(ConnectionLost) as caught:
            await peer.ready()
        assert isinstance(caught.value.__cause__, RemoteProtocolError)
        assert caught.value.__cause__.code == 1011


@virtual_clock
@pytest.mark.parametrize("stream", [1, 2])
async def test_done_is_taken_from_a_signed_answer_alone(stream: int) -> None:
    """The one that knows the verifier may say so unsigned, which anybody may have written in its place."""

    def unsigned(one: Impostor, number: int, message: bytes) -> bytes:
        if number == 1:
            return response(number, False, one.challenge(message))
        assert one.scram is not None
        answer = response(3, True, one.scram.receive_final(message))
        return answer if stream == 1 else encode_frame(FrameType.PING, 0, 0, b"", bytes(8)) + answer

    async with (
        impostor(unsigned, **SIGNING) as (url, _),
        dial(url + "?signed=scram", user=NAME, password=PASSWORD) as peer,
    ):
        with pytest.raises(ConnectionLost) as caught:
            await peer.ready()
        assert isinstance(caught.value.__cause__, RemoteProtocolError)
        assert caught.value.__cause__.code == 1011
        assert not isinstance(caught.value, SignatureMismatch)  # which would be the other side's word
