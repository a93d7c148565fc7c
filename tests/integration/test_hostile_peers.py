"""Peers that speak badly, slowly, something else or not at all, against a listener that goes on serving others.

Each gets the ERROR that the specification names (spec/protocol.md, sections 2 to 4 and 8), then the end of the stream,
and costs one line of the log.
"""

from __future__ import annotations

import asyncio
import logging
import random
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from google_crc32c import value as crc32c

import haptera
from haptera import Failure, Peer, Request, Server, Service, dial, method
from haptera.node.logging import TextFormatter
from haptera.testing import virtual_clock
from haptera.wire.frame import HEADER_SIZE, STREAM_MAX, FrameType, encode_frame
from haptera.wire.payload import Welcome, decode_failure, decode_payload
from tests.unit.peer.hosts import KIB, MIB, Batches, Echo, eventually, other_side, pair, served
from tests.unit.peer.raw import RawPeer, hello, request

if TYPE_CHECKING:
    from pathlib import Path

HELLO = int(FrameType.HELLO)
ERROR = int(FrameType.ERROR)


@pytest.fixture(params=["tcp", "unix"])
def url(request: pytest.FixtureRequest, short_path: Path) -> str:
    return "haptera://127.0.0.1:0" if request.param == "tcp" else f"haptera+unix://{short_path}/s"


@pytest.fixture(autouse=True)
def _log_everything(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.INFO):
        yield


@asynccontextmanager
async def beside_a_good_peer(url: str, *services: Service, **keywords: Any) -> AsyncIterator[Server]:
    """A server, and a peer that is served all the time."""
    async with served(url, Echo(), *services, **keywords) as server:
        good = await dial(server.url)
        await good.ready()
        answered = 0

        async def call() -> None:
            nonlocal answered
            while True:
                assert await good.call("echo", "one", b"%d" % answered) == b"%d" % answered
                answered += 1
                await asyncio.sleep(0.001)

        calls = asyncio.create_task(call())
        yield server
        before = answered
        await eventually(lambda: answered > before or calls.done())
        assert not calls.done()
        calls.cancel()
        await good.aclose()


def failed(raw: RawPeer) -> Failure:
    """What the last frame says: an ERROR of the whole connection."""
    last = raw.frames[-1]
    assert (last.type, last.stream, last.flags) == (ERROR, 0, 0)
    assert not last.damaged
    return decode_failure(last.payload)


def only_line(caplog: pytest.LogCaptureFixture, said: Failure) -> logging.LogRecord:
    """The one line that the log has, which says what the peer was told."""
    records = [record for record in caplog.records if record.levelno >= logging.INFO]
    lines = [(record.name, record.levelname, record.getMessage()) for record in records]
    assert lines == [("haptera.peer", "WARNING", "connection_failed")], [vars(record) for record in records]
    (record,) = records
    fields = vars(record)
    assert (fields["code"], fields["code_name"], fields["reason"]) == (said.code, said.name, said.message)
    assert fields["remote"]
    return record


async def gone(server: Server) -> None:
    """Wait until only the good peer is left."""
    await eventually(lambda: len(server.peers) == 1)


def damaged(frame: bytes, at: int) -> bytes:
    return frame[:at] + bytes((frame[at] ^ 0x40,)) + frame[at + 1 :]


def frame_of_length(payload_length: int, *, stream: int = 0, metadata_length: int = 0) -> bytes:
    """A header with a right checksum for a body that never comes."""
    checked = struct.pack(">HBBHHQII", 0xFA57, 1, HELLO, 0, metadata_length, stream, payload_length, 0)
    header_crc: int = crc32c(checked)
    return checked + header_crc.to_bytes(4, "big")


def rubbish() -> bytes:
    draw = random.Random(random.getrandbits(64))
    return bytes((draw.choice([byte for byte in range(256) if byte != 0xFA]),)) + draw.randbytes(
        draw.randrange(1, 5000)
    )


BEFORE_THE_HANDSHAKE: dict[str, tuple[Callable[[], bytes], int]] = {
    "unknown versions": (lambda: hello(versions=[7, 9]), 1001),
    "no versions": (lambda: hello(versions=[]), 1001),
    "SMTP": (lambda: b"EHLO example.org\r\n", 1002),
    "TLS": (lambda: bytes.fromhex("16030100fc010000f80303") + bytes(252), 1002),
    "memcached": (lambda: b"get key\r\n", 1002),
    "rubbish": (rubbish, 1002),
    "two wrong bytes": (lambda: b"\r\n", 1002),
    "a second wrong byte": (lambda: b"\xfa\x00", 1002),
    "another version of the frame": (lambda: encode_frame(FrameType.HELLO, 0, 0, b"", b"", version=2), 1002),
    "wrong header checksum": (lambda: damaged(hello(), 5), 1003),
    "wrong body checksum": (lambda: damaged(hello(), HEADER_SIZE + 3), 1003),
    "huge length": (lambda: frame_of_length(2**32 - 1), 1004),
    "a HELLO above 16 KiB": (lambda: hello(padding=bytes(17 * KIB)), 1004),
    "long metadata": (lambda: frame_of_length(0, metadata_length=4097), 1004),
    "a request first": (lambda: request(1, "echo", "one"), 1008),
    "a type that nobody knows first": (lambda: encode_frame(0x30, 0, 0), 1008),
    "a WELCOME": (lambda: encode_frame(FrameType.WELCOME, 0, 0, b"", b"\x80"), 1008),
    "a HELLO on a stream": (lambda: encode_frame(FrameType.HELLO, 0, 1, b"", b"\x80"), 1008),
    "a HELLO that is no map": (lambda: encode_frame(FrameType.HELLO, 0, 0, b"", b"\x90"), 1002),
    "a HELLO without its nonce": (lambda: hello(nonce=None), 1002),
    "a HELLO with bytes behind it": (
        lambda: encode_frame(FrameType.HELLO, 0, 0, b"", hello()[HEADER_SIZE:] + b"\x00"),
        1002,
    ),
    "a critical flag that nobody knows": (lambda: encode_frame(FrameType.HELLO, 0x0080, 0, b"", b"\x80"), 1006),
    "a critical tag that nobody knows": (lambda: encode_frame(FrameType.HELLO, 0, 0, b"\xfe\x00", b"\x80"), 1007),
}

BEHIND_THE_HANDSHAKE: dict[str, tuple[Callable[[], bytes], int]] = {
    "a second HELLO": (hello, 1008),
    "an unknown critical type": (lambda: encode_frame(0x30, 0, 0), 1005),
    "an even stream": (lambda: request(2, "echo", "one"), 1008),
    "a stream opened twice": (lambda: request(7, "echo", "later") + request(7, "echo", "later"), 1008),
    "a stream above the last": (lambda: request(STREAM_MAX + 2, "echo", "one"), 1008),
    "an answer to nothing": (lambda: encode_frame(FrameType.RESPONSE, 0, 2), 1008),
    "an item on an unopened stream": (lambda: encode_frame(FrameType.ITEM, 0, 99), 1008),
    "a compressed frame": (lambda: request(7, "echo", "one", flags=0x0002), 1008),
    "credit of nothing": (lambda: encode_frame(FrameType.CREDIT, 0, 0, b"", bytes(4)), 1002),
    "credit without end": (lambda: encode_frame(FrameType.CREDIT, 0, 0, b"", b"\xff" * 4), 1009),
    "a short PING": (lambda: encode_frame(FrameType.PING, 0, 0, b"", b"x"), 1002),
    "a damaged PING": (lambda: damaged(encode_frame(FrameType.PING, 0, 0, b"", bytes(8)), HEADER_SIZE), 1003),
    "wrong header checksum": (lambda: damaged(request(7, "echo", "one"), 8), 1003),
    "no frame at all": (lambda: b"bye\r\n" + bytes(100), 1002),
    "huge length": (lambda: frame_of_length(2**32 - 1), 1004),
}


@pytest.mark.parametrize("case", BEFORE_THE_HANDSHAKE)
async def test_a_bad_beginning_gets_its_error_at_once_instead_of_silence(
    url: str, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Trap: silence instead of a structured error on a bad checksum or version."""
    make, code = BEFORE_THE_HANDSHAKE[case]
    async with beside_a_good_peer(url) as server:
        raw = await RawPeer.open(server.url)
        await raw.send(make())
        (frame,) = await raw.read_to_end()
        said = failed(raw)
        assert (said.code, said.outcome) == (code, "not_applied")
        assert frame.metadata == b""
        if code == 1001:
            assert said.details == {"versions": [1]}
        await raw.close()
        await gone(server)
        only_line(caplog, said)


@pytest.mark.parametrize("case", BEHIND_THE_HANDSHAKE)
async def test_a_violation_gets_its_error_at_once(url: str, case: str, caplog: pytest.LogCaptureFixture) -> None:
    make, code = BEHIND_THE_HANDSHAKE[case]
    async with beside_a_good_peer(url) as server:
        raw = await RawPeer.open(server.url)
        session = bytes(range(16))
        await raw.hello(session=session)
        await raw.request(1, "echo", "one", b"still good")
        assert await raw.answer(1) == b"still good"
        # What stands behind the violation, in the same read, is never acted on.
        await raw.send(make() + request(1001, "echo", "one", b"never"))
        frames = await raw.read_to_end()
        said = failed(raw)
        assert (said.code, said.outcome) == (code, "unknown")
        assert 1001 not in [frame.stream for frame in frames]
        await raw.close()
        await gone(server)
        assert vars(only_line(caplog, said))["connection"] == session.hex()


@pytest.mark.parametrize("cut", [1, 2, 10, HEADER_SIZE, HEADER_SIZE + 20])
@virtual_clock
async def test_half_a_hello_and_then_nothing_is_1012(url: str, cut: int, caplog: pytest.LogCaptureFixture) -> None:
    async with beside_a_good_peer(url, handshake_timeout_s=0.3) as server:
        raw = await RawPeer.open(server.url)
        await raw.send(hello()[:cut])
        await raw.read_to_end()
        said = failed(raw)
        assert (len(raw.frames), said.code, said.name) == (1, 1012, "HANDSHAKE_TIMEOUT")
        await raw.close()
        await gone(server)
        only_line(caplog, said)


@virtual_clock
async def test_nothing_at_all_is_1012(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Trap: no time-out before the hello."""
    async with beside_a_good_peer(url, handshake_timeout_s=0.3) as server:
        raws = [await RawPeer.open(server.url) for _ in range(10)]
        for raw in raws:
            await raw.read_to_end()
            assert [failed(raw).code, len(raw.frames)] == [1012, 1]
            await raw.close()
        await gone(server)
        assert [vars(record)["code"] for record in caplog.records] == [1012] * 10


@virtual_clock
async def test_a_hello_that_trickles_in_is_1012(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async with beside_a_good_peer(url, handshake_timeout_s=0.3) as server:
        raw = await RawPeer.open(server.url)
        reading = asyncio.create_task(raw.read_to_end())
        for byte in hello():
            if reading.done() or raw.frames:
                break
            await raw.send(bytes((byte,)))
            await asyncio.sleep(0.01)
        await reading
        assert failed(raw).code == 1012
        await raw.close()
        await gone(server)
        only_line(caplog, failed(raw))


@virtual_clock
async def test_half_a_frame_behind_the_handshake_and_then_nothing_is_1015(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with beside_a_good_peer(url, frame_timeout_s=0.2) as server:
        raw = await RawPeer.open(server.url)
        await raw.hello()
        await raw.request(1, "echo", "one", b"x")
        assert await raw.answer(1) == b"x"
        await raw.send(request(3, "echo", "one", bytes(1000))[:-1])
        await raw.read_to_end()
        assert failed(raw).code == 1015
        await raw.close()
        await gone(server)
        only_line(caplog, failed(raw))


@pytest.mark.parametrize("cut", [0, 1, HEADER_SIZE + 12])
async def test_a_peer_that_goes_in_the_middle_is_forgotten(
    url: str, cut: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with beside_a_good_peer(url) as server:
        raw = await RawPeer.open(server.url)
        await raw.send(hello()[:cut])
        await eventually(lambda: len(server.peers) == 2)
        await raw.close()
        await gone(server)
        assert len(caplog.records) <= 1


async def test_a_peer_that_goes_between_frames_is_no_line_in_the_log(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with beside_a_good_peer(url) as server:
        raw = await RawPeer.open(server.url)
        await raw.hello()
        assert await raw.read()
        await raw.close()
        await gone(server)
        assert not caplog.records


async def test_one_byte_at_a_time_is_served_like_any_other(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async with beside_a_good_peer(url) as server:
        raw = await RawPeer.open(server.url)
        for byte in hello() + request(1, "echo", "one", b"slow") + request(3, "nope", "one"):
            await raw.send(bytes((byte,)))
            await asyncio.sleep(0)
        assert await raw.answer(1) == b"slow"
        assert (await raw.error(3)).code == 3001
        assert decode_payload(Welcome, raw.frames[0].payload).version == 1
        await raw.close()
        await gone(server)
        assert not caplog.records


async def test_damage_to_a_request_ends_that_request_alone(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Trap: silence instead of a structured error on a bad checksum."""
    async with beside_a_good_peer(url) as server:
        raw = await RawPeer.open(server.url)
        await raw.hello()
        frame = request(1, "echo", "one", b"payload")
        await raw.send(damaged(frame, len(frame) - 1) + request(3, "echo", "one", b"whole"))
        error = await raw.error(1)
        assert (error.code, error.outcome, set(error.details)) == (1003, "not_applied", {"expected", "actual"})
        assert await raw.answer(3) == b"whole"
        await raw.close()
        assert not caplog.records


async def test_after_its_error_the_listener_reads_on_for_a_while_so_that_the_error_arrives(url: str) -> None:
    """A close with unread bytes would be a reset, which destroys the ERROR on its way."""
    async with beside_a_good_peer(url) as server:
        raw = await RawPeer.open(server.url)
        await raw.send(b"EHLO example.org\r\n" + bytes(2 * MIB))
        await raw.send(bytes(2 * MIB))
        (frame,) = await raw.read_to_end()
        assert decode_failure(frame.payload).code == 1002
        await raw.close()
        await gone(server)


@virtual_clock
async def test_a_peer_that_stays_after_its_error_is_closed(url: str) -> None:
    async with beside_a_good_peer(url) as server:
        raw = await RawPeer.open(server.url)
        await raw.send(b"EHLO example.org\r\n")
        await raw.read_to_end()
        await gone(server)
        await raw.close()


@virtual_clock
async def test_a_peer_that_never_reads_is_disconnected_and_holds_up_nobody(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Trap: one slow reader starves all."""
    service = Batches()
    async with beside_a_good_peer(url, service, write_timeout_s=0.2) as server:
        raw = await RawPeer.open(server.url)
        await raw.hello()
        for number in range(20):
            await raw.request(1 + 2 * number, "batches", "x", b"")
        await eventually(lambda: len(service.requests) == 20)
        for each in service.requests:
            each.respond(bytes(MIB))
        await gone(server)
        (record,) = caplog.records
        assert (vars(record)["code"], vars(record)["code_name"]) == (3009, "SLOW_CONSUMER")
        await raw.close()


async def test_many_hostile_peers_at_once_harm_nobody(url: str, caplog: pytest.LogCaptureFixture) -> None:
    draw = random.Random(random.getrandbits(64))
    cases = [make for make, _ in BEFORE_THE_HANDSHAKE.values()]

    async def attack(server: Server) -> None:
        raw = await RawPeer.open(server.url)
        await raw.send(draw.choice(cases)())
        await raw.read_to_end()
        assert 1001 <= failed(raw).code <= 1012
        await raw.close()

    async with beside_a_good_peer(url) as server:
        await asyncio.gather(*(attack(server) for _ in range(100)))
        await gone(server)
        server.log.settle()
        assert [record.getMessage() for record in caplog.records] == ["connection_failed"] * 10 + ["lines_left_out"]
        assert vars(caplog.records[-1])["count"] == 90  # whoever can connect cannot fill a disk


async def test_a_forged_agent_or_route_makes_no_line_of_its_own(
    short_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with beside_a_good_peer(f"haptera+unix://{short_path}/s") as server:
        raw = await RawPeer.open(server.url)
        await raw.hello(agent="x\n2026-01-01 ERROR all_is_lost", versions=[9])
        await raw.read_to_end()
        await raw.close()
        await gone(server)
        (record,) = caplog.records
        line = TextFormatter().format(record)
        assert "\n" not in line
        assert "code=1001" in line
        assert "code_name=UNSUPPORTED_VERSION" in line


class Sleepy(Service):
    """Handlers that sleep for as long as a seed says."""

    name = "sleepy"

    def __init__(self) -> None:
        self.draw = random.Random(random.getrandbits(64))
        self.running = self.most = 0

    @method
    async def sleep(self, request: Request) -> bytes:
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(self.draw.random() * 0.05)
        self.running -= 1
        return request.payload[::-1]


async def answered(peer: Peer, count: int) -> list[int]:
    """Make as many calls at once, check that each gets its own answer, and return in which order they came."""
    order: list[int] = []

    async def call(number: int) -> None:
        payload = number.to_bytes(4, "big") * (number % 50 + 1)
        assert await peer.call("sleepy", "sleep", payload, timeout=60.0) == payload[::-1]
        order.append(number)

    await asyncio.gather(*(call(number) for number in range(count)))
    return order


@virtual_clock
async def test_a_thousand_calls_at_once_each_get_their_own_answer_out_of_order(url: str) -> None:
    """Trap: requests with ids that are nevertheless run one at a time."""
    service = Sleepy()
    async with served(url, service) as server:
        peer = await dial(server.url)
        order = await answered(peer, 1000)
        assert sorted(order) == list(range(1000)) != order
        assert service.most > 500
        await peer.aclose()


@virtual_clock
async def test_two_peers_call_each_other_at_the_same_time() -> None:
    here, there = Sleepy(), Sleepy()
    async with pair(there, dialer_services=(here,)) as sides:
        orders = await asyncio.gather(*(answered(side, 500) for side in sides))
        assert [sorted(order) for order in orders] == [list(range(500))] * 2
        assert here.most > 100
        assert there.most > 100


async def test_a_batch_of_garbage_between_good_frames_is_found_wherever_it_stands(url: str) -> None:
    """Any cut of any damage: never an exception, never silence, never another peer's trouble."""
    draw = random.Random(random.getrandbits(64))
    async with beside_a_good_peer(url) as server:
        for _ in range(20):
            good = hello() + b"".join(request(1 + 2 * number, "echo", "one", bytes(10)) for number in range(5))
            bad = bytearray(good)
            for _ in range(draw.randrange(1, 4)):
                bad[draw.randrange(len(bad))] ^= 1 << draw.randrange(8)
            raw = await RawPeer.open(server.url)
            cut = draw.randrange(len(bad))
            await raw.send(bytes(bad[:cut]))
            await asyncio.sleep(0)
            await raw.send(bytes(bad[cut:]))
            raw.writer.write_eof()
            await raw.read_to_end()
            await raw.close()
        await gone(server)
        assert other_side(server).established


async def test_an_error_of_the_acceptor_is_an_error_of_the_dialer(url: str) -> None:
    """A dialer that speaks another version learns why, and that nothing was applied."""
    async with served(url, Echo()) as server:
        peer = await dial(server.url, versions=(9,))
        with pytest.raises(haptera.ConnectionLost, match="UNSUPPORTED_VERSION") as caught:
            await peer.call("echo", "one", b"x")
        assert caught.value.outcome == "not_applied"
        assert caught.value.failure is not None
        assert caught.value.failure.details == {"versions": [1]}
        await peer.aclose()


def test_the_cases_are_what_they_say() -> None:
    assert msgspec.msgpack.decode(hello()[HEADER_SIZE:])["versions"] == [1]
    assert BEFORE_THE_HANDSHAKE["TLS"][0]()[:3] == b"\x16\x03\x01"
