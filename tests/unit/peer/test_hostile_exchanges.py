"""Sides that get an exchange wrong on purpose (spec/protocol.md, sections 5 and 8): none comes in, or keeps much."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from haptera.errors import AuthenticationFailed, Failure
from haptera.node.logging import TextFormatter
from haptera.peer import EXTERNAL, PLAIN, dial
from haptera.security import link_binding
from haptera.testing import virtual_clock
from haptera.wire import COMPRESSED
from haptera.wire.frame import FrameType, encode_frame
from haptera.wire.metadata import Tag, encode_entry, encode_route
from tests.unit.peer.hosts import ANY_PORT, Echo, connection_of, eventually, other_side, served
from tests.unit.peer.raw import request
from tests.unit.peer.strangers import NONCE, SCRAM, Stranger, authenticate
from tests.unit.peer.users import NAME, PASSWORD, Users

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from haptera import Server
    from haptera.security import Verifier

KIB = 1024
REFUSED = Failure(2002, "AUTHENTICATION_FAILED", "authentication failed", "not_applied", {})
REQUIRED = Failure(2001, "AUTHENTICATION_REQUIRED", "authentication is required", "not_applied", {})


@asynccontextmanager
async def strangers(users: Users, **keywords: Any) -> AsyncIterator[Server]:
    async with served(ANY_PORT, Echo(), authenticator=users, grease=False, **keywords) as server:
        yield server


@virtual_clock
async def test_an_honest_stranger_comes_in_and_is_served() -> None:
    """The double is honest if nothing is asked of it, so that its failures are those of its lies."""
    users = Users()
    async with strangers(users) as server:
        stranger = await Stranger.open(server.url)
        assert stranger.welcome["mechanisms"] == [SCRAM]
        assert stranger.welcome["services"] == ["session"]
        exchange = await stranger.scram()
        answer = await stranger.step(SCRAM, await stranger.final(exchange))
        assert isinstance(answer, list)
        exchange.conclude(answer[1])
        await stranger.raw.request(5, "echo", "one", b"x")
        assert await stranger.raw.answer(5) == b"x"
        assert users.ends == [(NAME, SCRAM, None)]
        await stranger.raw.close()


@virtual_clock
async def test_an_answer_is_bound_to_the_connection_that_it_was_made_for() -> None:
    """A capability or a version that is stripped, a nonce that is changed, and a relay: the handshakes differ."""
    users = Users()
    async with strangers(users) as server:
        stranger = await Stranger.open(server.url)
        seen = stranger.raw.frames[0]
        welcome_frame = encode_frame(seen.type, seen.flags, seen.stream, seen.metadata, seen.payload)
        changed = bytearray(stranger.hello_frame)
        changed[-1] ^= 1
        bindings = [
            link_binding(bytes(changed), welcome_frame, bytes(32)),
            link_binding(stranger.hello_frame, welcome_frame + b"x", bytes(32)),
            link_binding(stranger.hello_frame, welcome_frame, bytes([1]) + bytes(31)),
        ]
        for binding in bindings:
            exchange = await stranger.scram(binding=binding)
            assert await stranger.step(SCRAM, await stranger.final(exchange)) == REFUSED
        assert await stranger.end() is None
        assert [end[0] for end in users.ends] == [NAME] * 3
        await eventually(lambda: not server.peers)


@virtual_clock
async def test_a_proof_that_was_seen_is_of_no_use_in_another_exchange() -> None:
    users = Users()
    async with strangers(users) as server:
        stranger = await Stranger.open(server.url)
        exchange = await stranger.scram()
        seen = await stranger.final(exchange)
        other = await Stranger.open(server.url)
        await other.scram()
        assert await other.step(SCRAM, seen) == REFUSED
        await stranger.step(SCRAM, b"garbage")
        await stranger.scram()  # on the same connection there is another challenge, too
        assert await stranger.step(SCRAM, seen) == REFUSED
        await stranger.raw.close()
        await other.raw.close()


@virtual_clock
@pytest.mark.parametrize(
    ("mechanism", "message"),
    [
        (SCRAM, b""),
        (SCRAM, b"c=biws,r=x,p=AAAA"),
        (SCRAM, b"n,,n=app,r=" + NONCE.encode()),
        (SCRAM, b"y,,n=app,r=" + NONCE.encode()),
        (SCRAM, b"p=haptera-hello,a=admin,n=app,r=" + NONCE.encode()),
        (SCRAM, b"p=tls-unique,,n=app,r=" + NONCE.encode()),
        (SCRAM, b"p=haptera-hello,,n=app,r=short"),
        (SCRAM, b"p=haptera-hello,,n=app,r=" + b"n" * 5000),
        (SCRAM, b"\xff" * 64),
        (EXTERNAL, b"app"),
        (PLAIN, b"\0app\0" + PASSWORD.encode()),
        ("SCRAM-SHA-1", b""),
        ("", b""),
    ],
)
async def test_a_message_that_no_honest_side_sends_is_a_failure_and_the_third_closes(
    mechanism: str, message: bytes
) -> None:
    users = Users(SCRAM, EXTERNAL, PLAIN)
    async with strangers(users) as server:
        stranger = await Stranger.open(server.url)
        for _ in range(3):
            answer = await stranger.step(mechanism, message)
            assert isinstance(answer, Failure)
            offered = {"mechanisms": [SCRAM]}
            assert (answer.code, answer.details) in ((2002, {}), (2005, offered))
            assert (answer.code == 2005) == (mechanism != SCRAM)
        assert await stranger.end() is None
        assert all(reason is not None for _, _, reason in users.ends)
        assert [name for name, _, _ in users.ends] == users.begun
        assert len(users.begun) == (3 if mechanism == SCRAM else 0)


@virtual_clock
@pytest.mark.parametrize(
    "argument",
    [
        b"\x92\xa3\xff\xfe\xfd\xc4\x00",
        b"",
        b"\xc0",
        b"\x92\xa0",
        b"\x91\xa0",
        b"\x92\xc4\x00\xc4\x00",
        b"\x93\xa0\xc4\x00\x01",
        b"\x92\x01\x02",
    ],
)
async def test_an_argument_that_is_malformed_fails_like_a_wrong_password(argument: bytes) -> None:
    async with strangers(Users()) as server:
        stranger = await Stranger.open(server.url)
        await stranger.raw.send(request(1, "session", "authenticate", argument))
        assert await stranger.answer(1) == REFUSED
        stranger.stream = 1
        exchange = await stranger.scram()  # the connection goes on
        assert isinstance(await stranger.step(SCRAM, await stranger.final(exchange)), list)
        await stranger.raw.close()


@virtual_clock
async def test_the_end_of_an_attempt_is_told_if_it_was_let_begin_and_of_no_other_one() -> None:
    """An authenticator that counts attempts under way would lose its count, and refuse or let in too many."""
    users = Users()
    async with strangers(users) as server:
        stranger = await Stranger.open(server.url)
        assert await stranger.step(SCRAM, b"garbage") == REFUSED
        await stranger.scram()
        assert await stranger.step(SCRAM, b"garbage") == REFUSED
        assert [name for name, _, _ in users.ends] == users.begun == ["", NAME]
        users.refusal = Failure(2003, "AUTHENTICATION_LOCKED", "wait", "not_applied", {"retry_after_ms": 1})
        assert await stranger.step(SCRAM, b"garbage") == users.refusal
        assert await stranger.end() is None
        assert len(users.ends) == 2


@virtual_clock
async def test_an_authenticator_that_fails_lets_nothing_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    users = Users()
    async with strangers(users) as server:
        stranger = await Stranger.open(server.url)
        monkeypatch.setattr(users, "refuses", lambda peer, name: 1 // 0)
        for message in (exchange_first(), b"garbage"):
            assert await stranger.step(SCRAM, message) == REFUSED
        await stranger.raw.close()
        await eventually(lambda: not server.peers)
    assert users.ends == []


@virtual_clock
async def test_steps_that_are_swapped_fail() -> None:
    async with strangers(Users()) as server:
        stranger = await Stranger.open(server.url)
        exchange = await stranger.scram()
        final = await stranger.final(exchange)
        assert await stranger.step(SCRAM, exchange_first()) == REFUSED  # a first message in the place of the last
        assert await stranger.step(SCRAM, final) == REFUSED  # and the other way round
        await stranger.raw.close()


def exchange_first() -> bytes:
    return f"p=haptera-hello,,n={NAME},r={NONCE}".encode()


@virtual_clock
async def test_an_exchange_does_not_go_on_by_another_mechanism() -> None:
    async with strangers(Users()) as server:
        stranger = await Stranger.open(server.url)
        exchange = await stranger.scram()
        assert await stranger.step("EXTERNAL", await stranger.final(exchange)) == REFUSED
        await stranger.raw.close()


@virtual_clock
async def test_an_unknown_user_is_taken_through_the_same_steps() -> None:
    """Trap: enumeration of users by the shape, the salt or the number of the answers."""
    users = Users()
    async with strangers(users) as server:
        shapes = []
        for name in (NAME, "nobody", "nobody"):
            stranger = await Stranger.open(server.url)
            exchange = await stranger.scram(name=name)
            salt = stranger.salt
            failed = await stranger.step(SCRAM, await stranger.final(exchange, "wrong"))
            shapes.append((len(salt), stranger.iterations, failed))
            await stranger.raw.close()
        assert shapes == [shapes[0]] * 3
        assert users.asked == [NAME, "nobody", "nobody"]
        assert len({reason for _, _, reason in users.ends}) == 1


@virtual_clock
async def test_requests_behind_an_exchange_wait_for_it_and_fail_with_it() -> None:
    async with strangers(Users()) as server:
        behind = b"".join(request(stream, "echo", "one", b"x") for stream in (3, 5))
        first = authenticate(1, SCRAM, exchange_first())
        stranger = await Stranger.open(server.url, first + behind)
        stranger.stream = 5
        assert isinstance(await stranger.answer(1), list)
        await asyncio.sleep(1)
        assert [frame.stream for frame in stranger.raw.frames[1:]] == [1]
        assert await stranger.step(SCRAM, b"garbage") == REFUSED
        assert await stranger.answer(3) == await stranger.answer(5) == REQUIRED
        await stranger.raw.close()


@virtual_clock
async def test_the_requests_behind_the_last_failure_are_refused_before_the_end() -> None:
    async with strangers(Users()) as server:
        stranger = await Stranger.open(server.url)
        for _ in range(2):
            await stranger.step(SCRAM, b"garbage")
        await stranger.scram()
        await stranger.raw.send(request(7, "echo", "one", b"x"))
        stranger.stream = 7
        assert await stranger.step(SCRAM, b"garbage") == REFUSED
        assert await stranger.answer(7) == REQUIRED
        assert await stranger.end() is None


@virtual_clock
async def test_a_request_that_waits_can_be_cancelled_and_has_its_deadline() -> None:
    async with strangers(Users()) as server:
        stranger = await Stranger.open(server.url, capabilities=["pipelining", "request_deadline"])
        await stranger.scram()
        await stranger.raw.send(request(3, "echo", "one", b"x"))
        await stranger.raw.cancel(3)
        late = encode_route("echo", "one") + encode_entry(Tag.TIMEOUT_MS, (500).to_bytes(4, "big"))
        await stranger.raw.send(encode_frame(FrameType.REQUEST, 0, 5, late, b"x"))
        cancelled, overdue = await stranger.answer(3), await stranger.answer(5)
        assert isinstance(cancelled, Failure)
        assert isinstance(overdue, Failure)
        assert (cancelled.code, cancelled.outcome) == (3006, "not_applied")
        assert (overdue.code, overdue.outcome) == (3005, "not_applied")
        await stranger.raw.close()


@virtual_clock
async def test_only_the_session_is_served_and_tells_nothing_of_the_others() -> None:
    async with strangers(Users()) as server:
        stranger = await Stranger.open(server.url)
        for stream, (service, method) in enumerate((("session", "describe"), ("session", "whoami"), ("echo", "one"))):
            await stranger.raw.send(request(2 * stream + 1, service, method, b"\x90"))
        assert await stranger.answer(1) == [["session", ["authenticate", "describe"]]]
        assert await stranger.answer(3) == await stranger.answer(5) == REQUIRED
        await stranger.raw.close()


@virtual_clock
async def test_a_connection_authenticates_once() -> None:
    async with strangers(Users()) as server:
        stranger = await Stranger.open(server.url)
        await stranger.step(SCRAM, await stranger.final(await stranger.scram()))
        await stranger.send(SCRAM, exchange_first())
        assert await stranger.end() == 1008


@virtual_clock
async def test_a_side_that_needs_no_proof_is_told_that_there_is_no_mechanism() -> None:
    async with strangers(Users("none")) as server:
        stranger = await Stranger.open(server.url)
        assert stranger.welcome["mechanisms"] == []
        answer = await stranger.step(SCRAM, exchange_first())
        assert isinstance(answer, Failure)
        assert (answer.code, answer.details) == (2005, {"mechanisms": []})
        await stranger.raw.close()


# -- memory and time before the proof --------------------------------------------------------------------------------


@virtual_clock
async def test_a_frame_above_16_kib_ends_a_connection_before_its_bytes_have_come() -> None:
    async with strangers(Users()) as server:
        stranger = await Stranger.open(server.url)
        large = request(1, "echo", "one", bytes(16 * KIB + 1))
        await stranger.raw.send(large[:28])
        assert await stranger.end() == 1004


@virtual_clock
async def test_requests_of_more_than_16_kib_are_not_kept() -> None:
    async with strangers(Users()) as server:
        stranger = await Stranger.open(server.url)
        await stranger.scram()
        for stream in range(3, 13, 2):
            await stranger.raw.send(request(stream, "echo", "one", bytes(5 * KIB)))
        for stream in (9, 11):
            refused = await stranger.answer(stream)
            assert isinstance(refused, Failure)
            assert (refused.code, refused.outcome) == (3007, "not_applied")
        connection = connection_of(other_side(server))
        assert connection.ledger.held <= 16 * KIB
        stranger.stream = 13
        await stranger.raw.close()


@virtual_clock
async def test_more_than_64_kib_in_all_end_a_connection_that_has_not_authenticated() -> None:
    async with strangers(Users()) as server:
        stranger = await Stranger.open(server.url)
        flood = b"".join(request(stream, "echo", "one", bytes(900)) for stream in range(1, 151, 2))
        await stranger.raw.send(flood)
        assert await stranger.end() == 1008


@virtual_clock
@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (encode_frame(FrameType.REQUEST, COMPRESSED, 1, encode_route("session", "authenticate"), bytes(64)), 1008),
        (encode_frame(FrameType.REQUEST, COMPRESSED, 1, encode_route("echo", "one"), bytes(64)), 1008),
        (encode_frame(FrameType.HELLO, 0, 0, b"", b"\x80"), 1008),
        (encode_frame(FrameType.REQUEST, 0, 2, encode_route("echo", "one"), b""), 1008),
        (encode_frame(FrameType.CREDIT, 0, 1, b"", bytes(4)), 1008),
        (encode_frame(FrameType.PING, 0, 0, b"", bytes(7)), 1002),
        (b"GET / HTTP/1.1\r\nHost: haptera\r\n\r\n", 1002),
    ],
)
async def test_a_frame_that_may_not_come_ends_the_connection(frame: bytes, code: int) -> None:
    async with strangers(Users()) as server:
        stranger = await Stranger.open(server.url, capabilities=["pipelining", "zstd"])
        await stranger.raw.send(frame)
        assert await stranger.end() == code


@virtual_clock
async def test_an_item_does_not_come_before_the_proof() -> None:
    async with strangers(Users()) as server:
        stranger = await Stranger.open(server.url)
        await stranger.scram()
        await stranger.raw.request(3, "echo", "total", b"", streaming=True)
        await stranger.raw.item(3, b"x")
        assert await stranger.end() == 1008


@virtual_clock
async def test_items_of_a_request_that_has_waited_come_behind_the_proof() -> None:
    async with strangers(Users()) as server:
        stranger = await Stranger.open(server.url)
        exchange = await stranger.scram()
        await stranger.raw.request(3, "echo", "both", b"", streaming=True)
        stranger.stream = 3
        assert isinstance(await stranger.step(SCRAM, await stranger.final(exchange)), list)
        await stranger.raw.item(3, b"x")
        await stranger.raw.finish(3)
        assert await stranger.raw.answer(3) == b""
        assert b"x" in [frame.payload for frame in stranger.raw.frames if frame.type == FrameType.ITEM]
        await stranger.raw.close()


@virtual_clock
async def test_a_side_that_stops_in_the_middle_of_an_exchange_is_ended() -> None:
    users = Users()
    async with strangers(users) as server:
        stranger = await Stranger.open(server.url)
        await asyncio.sleep(4)
        await stranger.scram()
        await asyncio.sleep(5)
        assert server.half_open == 1
        assert await stranger.end() == 1012
        await eventually(lambda: not server.peers)
        assert users.ends == [(NAME, SCRAM, "the connection ended in the middle of the exchange")]


class Changing(Users):
    """Users that are changed when an exchange has begun."""

    def login(self, name: str) -> tuple[Verifier, bool]:
        verifier, admitted = super().login(name)
        self.admitted = False
        return verifier, admitted


@virtual_clock
async def test_a_user_that_is_changed_in_the_middle_of_an_exchange_is_not_let_in() -> None:
    """Trap: an exchange that is kept open with a password of before, until that is changed."""
    users = Changing()
    async with strangers(users) as server:
        stranger = await Stranger.open(server.url)
        exchange = await stranger.scram()
        assert await stranger.step(SCRAM, await stranger.final(exchange)) == REFUSED
        assert other_side(server).identity is None
        assert users.ends == [(NAME, SCRAM, "the user was changed in the middle of the exchange")]
        await stranger.raw.close()


async def test_a_user_that_is_changed_while_its_password_is_worked_on_is_not_let_in(tmp_path: Path) -> None:
    users = Changing(PLAIN)
    async with served(f"haptera+unix://{tmp_path}/s", Echo(), authenticator=users) as server:
        async with dial(server.url + "?auth=plain", user=NAME, password=PASSWORD) as peer:
            with pytest.raises(AuthenticationFailed):
                await peer.ready()
        assert users.ends == [(NAME, PLAIN, "the user was changed in the middle of the exchange")]


@virtual_clock
@pytest.mark.parametrize(
    ("name", "shown"), [("eve", "eve"), ("e\u00e9 code=1", "e\u00e9 code=1"), ("e" * 256, "e" * 199 + "…")]
)
async def test_the_log_names_the_user_of_an_attempt_that_failed(
    name: str, shown: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with strangers(Users()) as server:
        stranger = await Stranger.open(server.url)
        exchange = await stranger.scram(name=name)
        assert await stranger.step(SCRAM, await stranger.final(exchange)) == REFUSED
        await stranger.raw.close()
    (told,) = [record for record in caplog.records if record.getMessage() == "authentication_failed"]
    assert vars(told)["user"] == shown
    line = TextFormatter().format(told)
    assert line.isascii()
    assert f"user={shown if shown == 'eve' else json.dumps(shown)} mechanism=SCRAM-SHA-256 " in line


# -- signed frames --------------------------------------------------------------------------------------------------


@virtual_clock
@pytest.mark.parametrize(
    "frame",
    [
        request(1, "echo", "one", b"x"),
        request(1, "session", "describe", b"\x90"),
        request(3, "session", "authenticate", b""),
        request(1, "session", "authenticate", b"", flags=0x0004),
        encode_frame(FrameType.PING, 0, 0, b"", bytes(8)),
        encode_frame(FrameType.CANCEL, 0, 1),
        encode_frame(0xF1, 0, 0, b"", b""),
        encode_frame(FrameType.ITEM, 0, 1, encode_route("session", "authenticate"), b""),
        request(1, "session", "authenticate", b"")[:-1] + b"\xff",
    ],
)
async def test_nothing_but_the_two_steps_comes_before_signed_frames(frame: bytes) -> None:
    async with served(ANY_PORT + "?signed=scram", Echo(), authenticator=Users(), grease=False) as server:
        stranger = await Stranger.open(server.url, signs=True)
        await stranger.raw.send(frame)
        assert await stranger.end() == 1011


@virtual_clock
async def test_a_frame_between_the_steps_ends_a_connection_that_is_to_be_signed() -> None:
    async with served(ANY_PORT + "?signed=scram", Echo(), authenticator=Users(), grease=False) as server:
        for injected in (request(3, "echo", "one", b"x"), encode_frame(FrameType.PING, 0, 0, b"", bytes(8))):
            stranger = await Stranger.open(server.url, signs=True)
            assert stranger.welcome["mechanisms"] == [SCRAM]
            await stranger.scram()
            await stranger.raw.send(injected)
            assert await stranger.end() == 1011


@virtual_clock
async def test_an_unsigned_frame_behind_the_proof_ends_the_connection() -> None:
    users = Users()
    async with served(ANY_PORT + "?signed=scram", Echo(), authenticator=users, grease=False) as server:
        stranger = await Stranger.open(server.url, signs=True)
        exchange = await stranger.scram()
        # It comes in one write with the proof, which is good: it is not looked at before the proof is.
        await stranger.raw.send(
            authenticate(3, SCRAM, await stranger.final(exchange)) + request(5, "echo", "one", b"x")
        )
        data = b""
        while chunk := await stranger.raw.reader.read(65536):
            data += chunk
        assert users.ends == [(NAME, SCRAM, None)]
        await stranger.raw.close()
        assert b"SIGNATURE_MISMATCH" in data
        assert encode_frame(FrameType.RESPONSE, 0, 5, b"", b"x")[28:] not in data.partition(b"SIGNATURE")[0][-40:]


@virtual_clock
async def test_a_failed_exchange_of_a_signing_connection_is_one_unsigned_error_and_the_end() -> None:
    async with served(ANY_PORT + "?signed=scram", Echo(), authenticator=Users(), grease=False) as server:
        stranger = await Stranger.open(server.url, signs=True)
        exchange = await stranger.scram()
        assert await stranger.step(SCRAM, await stranger.final(exchange, "wrong")) == REFUSED
        assert await stranger.end() is None
        assert [frame.stream for frame in stranger.raw.frames] == [0, 1, 3]


@virtual_clock
async def test_a_side_that_would_not_sign_is_refused() -> None:
    async with served(ANY_PORT + "?signed=scram", Echo(), authenticator=Users()) as server:
        stranger = await Stranger.open(server.url)
        assert await stranger.end() == 1011
