"""The fuzz target of the bytes that come before an identity is proved, to an acceptor that knows a user."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING, Final

from fuzz.conversation import WRITE_SIZE, pieces
from fuzz.identity import VERIFIER
from haptera.connection import Config, Connection, Role
from haptera.connection.config import EARLY_RECEIVED_MAX, EARLY_SIZE_MAX, Budget
from haptera.peer import EXTERNAL, SCRAM, Identity, Peer, Request, Service, SessionService, Verifier, assemble, link_of
from haptera.wire.frame import FrameType, encode_frame
from haptera.wire.payload import Hello, encode_payload

if TYPE_CHECKING:
    from haptera.errors import Failure

#: Bytes that may be kept beside the requests: a frame that has begun, and one piece that is not decoded.
_BESIDE: Final = 2 * EARLY_SIZE_MAX
#: Bytes of answers that a stranger can cause: some hundred for each of its frames, which have at least 28.
_ANSWERS_MAX: Final = 8 * EARLY_RECEIVED_MAX


class _Users:
    def mechanisms(self, peer: Peer) -> tuple[str, ...]:
        return (SCRAM, EXTERNAL)

    def implied(self, peer: Peer) -> Identity:
        raise AssertionError("each connection is asked for a proof")

    def external(self, peer: Peer) -> str | None:
        return None

    def login(self, name: str) -> tuple[Verifier, bool]:
        return VERIFIER, True

    def refuses(self, peer: Peer, name: str) -> Failure | None:
        return None

    def ended(self, peer: Peer, name: str, mechanism: str, reason: str | None) -> None:
        pass


class _Never(Service):
    name = "kv"
    served = 0

    def handle(self, requests: list[Request]) -> None:
        self.served += len(requests)


class _Sink(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written = 0
        self.closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += len(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = True

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def check_entrance(data: bytes) -> None:
    """Nothing that a stranger sends is served, and no more of it is kept than may be."""
    head, seed = data.ljust(2, b"\0")[:2]
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(_receive(data[2:], signs=bool(head & 1), seed=seed))
    finally:
        loop.close()


async def _receive(data: bytes, *, signs: bool, seed: int) -> None:
    budget = Budget()
    config = Config(entropy=Random(seed).randbytes, grease=False, signs_by_exchange=signs)
    connection = Connection(Role.ACCEPTOR, config, 0.0, budget)
    loop = asyncio.get_running_loop()
    never = _Never()
    peer = assemble(connection, [SessionService(), never], loop, authenticator=_Users())
    link, sink = link_of(peer), _Sink()
    link.transport = sink
    capabilities = ["pipelining", "request_deadline", *(["hmac_sha256"] if signs else [])]
    hello = Hello(versions=[1], agent="x", session=bytes(16), nonce=bytes(32), capabilities=capabilities)
    link.data_received(encode_frame(FrameType.HELLO, 0, 0, b"", encode_payload(hello)))
    assert connection.guarded
    for piece in pieces(data, seed):
        link.data_received(piece)
        while connection.more and link.ending is None:
            link.data_received(b"")
        assert peer.identity is None, "a stranger has come in"
        assert not never.served, "a stranger is served"
        assert connection.ledger.held <= EARLY_SIZE_MAX
        assert connection._decoder.held <= _BESIDE
        connection.check()
    link.flush()
    assert sink.written + len(connection.data_to_send(WRITE_SIZE)) <= _ANSWERS_MAX
    link.transport = None
    link.connection_lost(None)
    assert budget.used == 0, "bytes are kept of a connection that is gone"
