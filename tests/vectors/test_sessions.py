"""Whole authenticated connections, byte for byte, by both sides of this implementation (sessions.json)."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from haptera.connection import Config, Connection, Role, beginning_of
from haptera.connection import handshake as handshakes
from haptera.peer import SCRAM, Call, SessionService, assemble, link_of
from haptera.peer.own_credential import OwnCredential
from haptera.security import Verifier, verifier_of
from haptera.testing import virtual_clock
from haptera.wire import FrameType, Hello, decode_payload, encode_frame
from tests.unit.peer.users import Users

ROOT = Path(__file__).parents[2]
VECTORS: list[dict[str, Any]] = json.loads((ROOT / "spec/vectors/sessions.json").read_text())["vectors"]
HEADER_SIZE = 28


class OneUser(Users):
    """The user of a vector."""

    def __init__(self, vector: dict[str, Any]) -> None:
        super().__init__(SCRAM)
        self.user = vector["user"]
        self.verifier = verifier_of(vector["password"], bytes.fromhex(vector["salt"]), vector["iterations"])

    def login(self, name: str) -> tuple[Verifier, bool]:
        assert name == self.user
        return self.verifier, True


class Sink(asyncio.Transport):
    """A transport that keeps all that is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def take(self) -> bytes:
        written, self.written = self.written, b""
        return written

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def connection(role: Role, vector: dict[str, Any], nonce: str) -> Connection:
    def entropy(size: int) -> bytes:
        return b64decode(nonce) if size == len(b64decode(nonce)) else bytes(size)

    signs: dict[str, Any] = {"signs_by_exchange": vector["signed"]}
    return Connection(role, Config(entropy=entropy, grease=False, capabilities=("pipelining",), **signs), 0.0)


@virtual_clock
@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["name"]))
async def test_both_sides_say_just_these_bytes(vector: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    frames = [(each["from"], bytes.fromhex(each["hex"])) for each in vector["frames"]]
    hello, welcome = frames[0][1], frames[1][1]
    users = OneUser(vector)
    one = connection(Role.DIALER, vector, vector["dialer_nonce"])
    # The handshake's frames are those of the vector: this implementation writes their keys in another order.
    greeting = beginning_of(one)._handshake
    greeting.sent, greeting._hello = hello, decode_payload(Hello, hello[HEADER_SIZE:])
    one.outbox.close()
    one.outbox.add_control(hello)
    dialer = assemble(one, [SessionService()], loop, login=OwnCredential(SCRAM, users.user, vector["password"]))
    other = connection(Role.ACCEPTOR, vector, vector["acceptor_nonce"])
    acceptor = assemble(other, [SessionService()], loop, authenticator=users)
    link_of(dialer).above.opened()
    encode = encode_frame

    def answer(type_: int, *rest: Any) -> bytes:
        made = encode(type_, *rest)
        return welcome if type_ == FrameType.WELCOME and made != hello else made

    said: list[tuple[str, bytes]] = []
    call: Call | None = None
    left, right = Sink(), Sink()
    link_of(dialer).transport, link_of(acceptor).transport = left, right
    link_of(dialer).schedule_flush()
    with monkeypatch.context() as patched:
        patched.setattr(handshakes, "encode_frame", answer)
        await asyncio.sleep(0.01)
        said.append(("dialer", left.take()))
        link_of(acceptor).data_received(said[0][1])
    for _ in range(6):
        await asyncio.sleep(0.01)  # the keys are derived in a thread
        if data := right.take():
            said.append(("acceptor", data))
            link_of(dialer).data_received(data)
        await asyncio.sleep(0.01)
        if data := left.take():
            said.append(("dialer", data))
            link_of(acceptor).data_received(data)
        if one.admitted and call is None:
            call = dialer.request("session", "describe", b"\x90", timeout=None)
    assert [(side, b"".join(data for from_, data in said if from_ == side)) for side in ("dialer", "acceptor")] == [
        (side, b"".join(data for from_, data in frames if from_ == side)) for side in ("dialer", "acceptor")
    ]
    assert call is not None
    assert (await call).failure is None
    assert acceptor.identity is not None
    link_of(dialer).transport = link_of(acceptor).transport = None
    assert acceptor.identity.user == vector["user"]
