"""No round trip is spent on the handshake (spec/protocol.md, section 4, "First flight")."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

import haptera
from haptera import Peer
from haptera.connection import Config, Connection, Role
from haptera.peer.protocol import TransportProtocol
from haptera.peer.service import Service
from haptera.peer.session import SessionService
from haptera.wire.decoder import FrameDecoder
from haptera.wire.frame import Frame, FrameType
from tests.unit.peer.hosts import MIB, Echo, Gate, eventually, served


class Wire(asyncio.Transport):
    """One direction of an in-memory transport: counts the writes, and hands each to the other side as one read."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.other: asyncio.Protocol | None = None

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def deliver(self) -> int:
        """Let the other side read what was written since, in one piece; return how many bytes."""
        data = b"".join(self.writes)
        self.writes.clear()
        if data:
            assert self.other is not None
            self.other.data_received(data)
        return len(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass


def side(role: Role, *services: Service) -> tuple[Peer, Wire]:
    loop = asyncio.get_running_loop()
    entropy = bytes  # no two connections meet here, and grease is off
    peer = Peer(Connection(role, Config(entropy=entropy, grease=False), loop.time()), services, loop)
    wire = Wire()
    TransportProtocol(peer).connection_made(wire)
    return peer, wire


def pair() -> tuple[Peer, Wire, Peer, Wire]:
    dialer, up = side(Role.DIALER)
    acceptor, down = side(Role.ACCEPTOR, SessionService(), Echo(), Gate())
    up.other = TransportProtocol(acceptor)
    down.other = TransportProtocol(dialer)
    return dialer, up, acceptor, down


def frames_of(data: bytes) -> list[Frame]:
    decoder = FrameDecoder(16 * MIB)
    return decoder.receive(data) + decoder.receive(b"")  # the first frame of a connection comes alone


def types(data: bytes) -> list[int]:
    return [frame.type for frame in frames_of(data)]


async def rounds() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_hello_and_the_first_request_leave_in_one_write_and_one_round_trip_ends_the_call() -> None:
    dialer, up, _, down = pair()
    call = asyncio.ensure_future(dialer.call("echo", "one", b"hello", timeout=None))
    await rounds()
    assert [types(data) for data in up.writes] == [[FrameType.HELLO, FrameType.REQUEST]]
    up.deliver()
    await rounds()
    # WELCOME leaves in the read of HELLO; a handler in a task of its own answers a turn of the loop later.
    assert types(b"".join(down.writes)) == [FrameType.WELCOME, FrameType.RESPONSE]
    assert len(down.writes) <= 2
    down.deliver()
    assert await call == b"hello"
    assert up.writes == []


async def test_a_service_that_answers_at_once_answers_in_the_write_of_welcome() -> None:
    dialer, up, _, down = pair()
    call = dialer.request("session", "describe", b"\x90", timeout=None)
    await rounds()
    up.deliver()
    assert [types(data) for data in down.writes] == [[FrameType.WELCOME, FrameType.RESPONSE]]
    down.deliver()
    assert (await call).failure is None


async def test_as_many_calls_as_the_first_flight_takes_leave_in_one_write() -> None:
    dialer, up, _, down = pair()
    calls = [asyncio.ensure_future(dialer.call("echo", "one", b"%d" % number, timeout=None)) for number in range(100)]
    await rounds()
    (write,) = up.writes
    assert types(write) == [FrameType.HELLO] + [FrameType.REQUEST] * 64
    up.deliver()
    await rounds()
    down.deliver()
    await rounds()
    assert types(b"".join(up.writes)) == [FrameType.REQUEST] * 36
    up.deliver()
    await rounds()
    down.deliver()
    assert await asyncio.gather(*calls) == [b"%d" % number for number in range(100)]


@pytest.mark.parametrize("size", [1000, 5000, 12_000, 100_000])
async def test_a_first_flight_has_at_most_16_kib(size: int) -> None:
    dialer, up, _, _ = pair()
    calls = [dialer.request("echo", "one", bytes(size), timeout=None) for _ in range(100)]
    await rounds()
    frames = frames_of(b"".join(up.writes))
    requests = [frame for frame in frames if frame.type == FrameType.REQUEST]
    assert sum(28 + len(frame.metadata) + len(frame.payload) for frame in requests) <= 16 * 1024
    assert not any(frame.flags for frame in requests)
    assert len(requests) == sum(1 for call in calls if call.stream)


async def test_calls_of_one_turn_leave_in_one_write_and_so_do_their_answers() -> None:
    dialer, up, _, down = pair()
    first = dialer.request("echo", "one", b"", timeout=None)
    await rounds()
    up.deliver()
    await rounds()
    down.deliver()
    await first
    up.writes.clear()
    calls = [dialer.request("echo", "one", b"%d" % number, timeout=None) for number in range(50)]
    await rounds()
    assert len(up.writes) == 1
    up.deliver()
    await rounds()
    assert len(down.writes) == 1
    down.deliver()
    assert [(await call).payload for call in calls] == [b"%d" % number for number in range(50)]


async def test_over_a_socket_hello_and_the_first_request_are_one_read(short_path: Path) -> None:
    """What `haptera get` does, counted at a socket between both sides."""
    reads: list[bytes] = []
    async with served(f"haptera+unix://{short_path}/s", Echo()) as server:

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there_reader, there_writer = await asyncio.open_unix_connection(f"{short_path}/s")

            async def back() -> None:
                while data := await there_reader.read(65536):
                    writer.write(data)
                writer.close()

            backward = asyncio.create_task(back())
            while data := await reader.read(65536):
                reads.append(data)
                there_writer.write(data)
            there_writer.close()
            await backward

        proxy = await asyncio.start_unix_server(relay, f"{short_path}/proxy")
        peer = await haptera.dial(f"haptera+unix://{short_path}/proxy")
        assert await peer.call("echo", "one", b"x") == b"x"
        assert [types(data) for data in reads] == [[FrameType.HELLO, FrameType.REQUEST]]
        await peer.aclose()
        await eventually(lambda: not server.peers)
        proxy.close()
        await proxy.wait_closed()


async def test_a_dialer_that_calls_nothing_still_shakes_hands(short_path: Path) -> None:
    async with served(f"haptera+unix://{short_path}/s", Echo()) as server:
        peer = await haptera.dial(server.url)
        assert (peer.established, peer.session, peer.server_id, peer.agent, peer.max_message) == (
            False,
            b"",
            None,
            "",
            0,
        )
        await peer.ready()
        assert peer.established
        assert (len(peer.session), len(peer.server_id or b"")) == (16, 16)
        assert peer.agent.startswith("haptera-python/")
        await peer.ready()
        await peer.aclose()
