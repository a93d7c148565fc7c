"""One connection behind its handshake, an application on it that does a bit of everything, and what must always hold.

The other side is bytes: the application's choices and the connection's own randomness come from a seed, so that bytes
that were recorded once mean the same again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from random import Random
from typing import Any, Final

from fuzz import reference
from haptera.connection import Config, Connection, Role
from haptera.connection.config import Budget
from haptera.connection.events import (
    CallFailed,
    CancelReceived,
    Closed,
    ErrorReceived,
    Established,
    Event,
    ItemReceived,
    RequestAborted,
    RequestFinished,
    RequestReceived,
    ResponseReceived,
)
from haptera.connection.stream_law import ConnectionState
from haptera.errors import Failure, LocalProtocolError, failure
from haptera.wire.compression import Codec
from haptera.wire.payload import Limits

#: The smallest limits that a handshake allows, so that bytes of a fuzzer's size exhaust them.
TINY: Final = Limits(
    max_frame=16 * 1024, max_message=64 * 1024, stream_window=16 * 1024, connection_window=64 * 1024, max_streams=64
)
TINY_BUDGET: Final = 256 * 1024
SESSION: Final = bytes(range(16))
#: All that a connection says in one go: more than any input makes it say.
WRITE_SIZE: Final = 1 << 24
_TERMINAL: Final = frozenset({reference.RESPONSE, reference.ERROR})
_ANSWERS: Final = (ResponseReceived, ErrorReceived, CallFailed)


class Options:
    """What the two bytes at the head of an input choose."""

    def __init__(self, data: bytes) -> None:
        head, seed = data.ljust(2, b"\0")[:2]
        #: The application does nothing by itself.
        self.passive = bool(head & 1)
        self.tiny = bool(head & 2)
        self.grease = bool(head & 4)
        #: The bytes come at the seed's pieces, or all at once.
        self.cut = bool(head & 8)
        #: Time passes between two pieces.
        self.timed = bool(head & 16)
        #: Payloads may come compressed, and are sent so.
        self.compressed = bool(head & 32)
        self.seed = seed


def config(options: Options, role: Role, **more: Any) -> Config:
    entropy = Random(options.seed * 2 + role).randbytes
    if options.tiny:
        more |= {"limits": TINY, "budget": TINY_BUDGET}
    codec = Codec() if options.compressed else None
    return Config(entropy=entropy, grease=options.grease, compression=codec, **more)


def peer_config() -> Config:
    """The honest side that did the handshake. It can do whatever there is."""
    return Config(entropy=Random(99).randbytes, grease=False, compression=Codec())


def shake(one: Connection, other: Connection) -> None:
    """Exchange bytes until both are behind the handshake and quiet."""
    moved = True
    while moved:
        moved = False
        for sender, receiver in ((one, other), (other, one)):
            data = sender.data_to_send(WRITE_SIZE)
            if data:
                receiver.receive_data(data, 0.0)
                moved = True
    assert one.state is other.state is ConnectionState.OPEN


def open_connection(role: Role, options: Options) -> tuple[Connection, Budget]:
    """A connection behind its handshake with an honest peer, which is then forgotten."""
    process = Budget()
    connection = Connection(role, config(options, role), 0.0, process)
    other = Role.ACCEPTOR if role is Role.DIALER else Role.DIALER
    shake(connection, Connection(other, peer_config(), 0.0))
    return connection, process


def pieces(data: bytes, seed: int) -> Iterator[bytes]:
    """Cut bytes at random places: some of one byte, some of many frames."""
    random = Random(seed)
    at = 0
    while at < len(data):
        size = random.choice((1, 3, 27, 28, 29, 60, 500, 5000))
        yield data[at : at + size]
        at += size


class Application:
    """Calls, serves, sends, takes and cancels as its seed says, and asserts what it may rely on."""

    def __init__(self, role: Role, options: Options) -> None:
        self.connection, self.process = open_connection(role, options)
        self.role = role
        self.options = options
        self.sent = Sent(role)
        self.events: list[Event] = []
        self._random = Random(options.seed)
        self._calls: dict[int, bool] = {}  # whether it may still send items
        self._answered: set[int] = set()
        self._served: set[int] = set()
        self._serving: list[int] = []
        self._streamed: set[int] = set()  # streams whose answer may wait for credit
        self._finished: set[int] = set()
        self._untaken: list[ItemReceived] = []
        for streaming in (False, True, True, False):
            if self.connection.can_request(3):
                self._calls[self.connection.request("s", "m", b"abc", streaming=streaming)] = streaming
        self.write()

    # -- what it does --------------------------------------------------------------------------------------------

    def act(self) -> None:
        """Do a few things, as an application would between two reads."""
        for _ in range(self._random.randrange(4)):
            if self.connection.state is not ConnectionState.OPEN:
                return
            match self._random.randrange(8):
                case 0 | 1:
                    self._take()
                case 2:
                    self._answer()
                case 3:
                    self._send_item([each for each, more in self._calls.items() if more and each not in self._answered])
                case 4:
                    self._send_item(self._serving)
                case 5:
                    self._end_call()
                case 6:
                    if self.connection.can_request(100) and len(self._calls) < 40:
                        self._calls[self.connection.request("s", "m", bytes(100))] = False
                case _:
                    self.write()

    def _take(self) -> None:
        if self._untaken:
            item = self._untaken.pop(self._random.randrange(len(self._untaken)))
            taken = self.connection.take_item(item.stream, item.payload)
            if isinstance(taken, Failure):
                assert taken.code == 1010
                self.learn(self.connection.take_events())

    def _answer(self) -> None:
        if self._serving:
            stream = self._serving.pop(self._random.randrange(len(self._serving)))
            if self._random.random() < 0.3:
                self.connection.fail(stream, failure(3010))
            else:
                size = self._random.choice((0, 10, 5000))
                self.connection.respond(stream, bytes(size))

    def _send_item(self, streams: list[int]) -> None:
        if streams:
            stream = self._random.choice(streams)
            self._streamed.add(stream)
            try:
                self.connection.send_item(stream, bytes(self._random.choice((0, 100, 3000))))
            except LocalProtocolError:
                # A call that was cancelled when what it got was damaged; a peer that takes no message as large.
                assert stream in self._calls

    def _end_call(self) -> None:
        streams = [each for each in self._calls if each not in self._answered]
        if streams:
            stream = self._random.choice(streams)
            if self._calls[stream] and self._random.random() < 0.5:
                self._calls[stream] = False
                self.connection.finish(stream)
            else:
                self._calls[stream] = False
                self.connection.cancel(stream)

    def write(self) -> None:
        """Look at what the connection sends."""
        self.sent.read(self.connection.data_to_send(WRITE_SIZE))
        self.connection.take_writable()

    def answer_all(self) -> None:
        """Take every item and answer every request: nothing may be left open for its own reasons."""
        while self._untaken:
            self._take()
        while self._serving:
            self._answer()
        self.write()
        if self.connection.state is ConnectionState.OPEN:
            for stream in self._served - self._streamed:
                assert stream in self.sent.ended, "a request was not answered"

    # -- what it learns ------------------------------------------------------------------------------------------

    def learn(self, events: list[Event]) -> None:
        for event in events:
            assert not self.events or not isinstance(self.events[-1], Closed), "nothing comes behind the end"
            self.events.append(event)
            match event:
                case RequestReceived(stream=stream):
                    assert stream & 1 != self.role
                    assert stream not in self._served
                    self._served.add(stream)
                    self._serving.append(stream)
                case ItemReceived(stream=stream):
                    assert stream in self._calls or stream in self._served
                    assert stream not in self._answered, "nothing comes behind an answer"
                    assert stream not in self._finished
                    self._untaken.append(event)
                case RequestFinished(stream=stream):
                    assert stream in self._served
                    assert stream not in self._finished
                    self._finished.add(stream)
                case RequestAborted(stream=stream, failure=reason):
                    assert stream in self._served
                    # A passive one answers late: what comes until then must not depend on when.
                    if stream in self._serving and not self.options.passive:
                        self._serving.remove(stream)
                        self.connection.fail(stream, reason)
                case CancelReceived(stream=stream):
                    assert stream in self._served
                case ResponseReceived(stream=stream) | ErrorReceived(stream=stream) | CallFailed(stream=stream):
                    assert stream in self._calls
                    assert stream not in self._answered, "a call was answered twice"
                    self._answered.add(stream)
                    self._calls[stream] = False
                case Established():
                    raise AssertionError("the handshake was done before")
                case Closed(error=error):
                    assert error is None or str(error)
                case _:
                    pass
        self.check()

    def check(self) -> None:
        """The accounts of the connection are possible ones."""
        connection = self.connection
        ledger, outbox = connection.ledger, connection.outbox
        outbox.settle()
        assert ledger.held >= 0
        assert ledger.held + outbox.size + outbox.control_size == self.process.used
        assert ledger.held <= connection.config.budget
        assert connection._inflow._window >= 0
        assert connection.outbox.turns.credit >= 0
        assert len(connection._streams.serves) <= connection.config.limits.max_streams
        connection.check()

    def run(self, data: Iterable[bytes]) -> None:
        """Let the peer say all of `data` and go."""
        now = 0.0
        for piece in data:
            if self.options.timed:
                now += 1.0
                self.learn(self.connection.tick(now))
            self.learn(self.connection.receive_data(piece, now))
            while self.connection.more:
                self.learn(self.connection.receive_data(b"", now))
            if not self.options.passive:
                self.act()
            assert self.connection.next_tick() >= 0.0
        self.write()
        self.learn(self.connection.tick(now + 20.0))
        self.answer_all()
        self.learn(self.connection.tick(now + 100_000.0))
        self.write()
        self.learn(self.connection.receive_eof())
        self._check_end()

    def _check_end(self) -> None:
        connection = self.connection
        assert sum(isinstance(event, Closed) for event in self.events) == 1
        assert connection.open_streams == 0
        assert self.process.used == 0
        assert connection.next_tick() == float("inf")
        assert connection.tick(1e9) == connection.receive_eof() == connection.receive_data(bytes(100), 1e9) == []
        self.write()
        assert not connection.data_to_send(WRITE_SIZE)


class Sent:
    """What a connection has sent, held against the specification by who knows nothing of how it was made."""

    def __init__(self, role: Role) -> None:
        self.role = role
        self.ended: set[int] = set()
        self.closed = False
        self._data = b""
        self._opened = 0
        self._begun: dict[int, int] = {}  # the type of the message that is under way on a stream

    def read(self, data: bytes) -> None:
        self._data += data
        frames, code = reference.decode(self._data, 1 << 24, first=False)
        assert not code, "what is sent is no frame"
        for frame in frames:
            self._data = self._data[len(frame.encode()) :]
            self._take(frame)
        assert not self._data, "a frame was sent in part"

    def _take(self, frame: reference.RawFrame) -> None:
        assert not self.closed, "something was sent behind the connection's ERROR"
        assert not frame.damaged
        stream = frame.stream
        if stream == 0:
            self.closed = frame.type == reference.ERROR
            return
        mine = stream & 1 == self.role
        if frame.type == reference.REQUEST and not frame.flags & reference.CONTINUED:
            assert mine
            assert stream > self._opened, "an id was used again"
            self._opened = stream
        elif mine:
            assert stream <= self._opened
            assert frame.type not in _TERMINAL
        elif frame.type != reference.CREDIT:
            assert stream not in self.ended, "something was sent behind an answer"
            assert frame.type in _TERMINAL or frame.type == reference.ITEM
        continued = bool(frame.flags & reference.CONTINUED)
        assert not continued or self._begun.get(stream) == frame.type, "a fragment without a beginning"
        if frame.flags & reference.MORE:
            assert len(frame.payload) >= 1024
            self._begun[stream] = frame.type
        elif continued:
            del self._begun[stream]
        if frame.type in _TERMINAL and not mine and not frame.flags & reference.MORE:
            self.ended.add(stream)


def outline(events: Iterable[Event]) -> list[tuple[str, int, int]]:
    """What events say that does not depend on how the bytes were cut."""
    said = []
    for event in events:
        code = event.error.code if isinstance(event, Closed) and event.error is not None else 0
        if isinstance(event, _ANSWERS) and not isinstance(event, ResponseReceived):
            code = event.failure.code
        said.append((type(event).__name__, getattr(event, "stream", 0), code))
    return said
