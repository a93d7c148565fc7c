"""Two connection machines against each other, and one against anything (protocol, sections 2 to 4 and 8)."""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from haptera.connection import Connection, Role
from haptera.connection.config import Budget
from haptera.connection.events import (
    CallFailed,
    CancelReceived,
    Closed,
    ErrorReceived,
    Established,
    Event,
    ItemReceived,
    PackedItem,
    RequestAborted,
    RequestFinished,
    RequestReceived,
    ResponseReceived,
)
from haptera.connection.stream_law import ConnectionState
from haptera.errors import LocalProtocolError, failure
from haptera.wire.compression import Codec
from tests.unit.connection.machines import (
    CANCEL,
    CREDIT,
    ERROR,
    FINISH,
    ITEM,
    PING,
    REQUEST,
    RESPONSE,
    drain,
    frame,
    hello,
    machine,
    open_machine,
)

#: Of the profile that is in force: more where there is time for it.
EXAMPLES: Final = settings.default.max_examples if settings.default else 100
#: The smallest that the handshake allows, so that everything is soon exhausted.
TINY: Final = {
    "max_frame": 16 * 1024,
    "max_message": 256 * 1024,
    "stream_window": 16 * 1024,
    "connection_window": 64 * 1024,
    "max_streams": 64,
}
SIZES: Final = (0, 1, 30, 1023, 1024, 5000, 16_384, 17_000, 66_000, 200_000)


def _body(side: int, stream: int, number: int, size: int) -> bytes:
    """A payload of which any part out of place would be noticed."""
    mark = f"{side} {stream} {number} ".encode()
    return (mark * (size // len(mark) + 1))[:size]


class _Side:
    """An honest application on one side of the pair: it remembers what it did and what it learned."""

    def __init__(self, role: Role, seed: int, budget: int, *, grease: bool, signed: bool, packed: bool) -> None:
        self.process = Budget()
        self.role = role
        self.connection: Connection = machine(
            role,
            seed=seed,
            process=self.process,
            near=seed % 2 == 1,
            limits=dict(TINY),
            budget=budget,
            grease=grease,
            signing_key=bytes(32) if signed else None,
            compression=Codec() if packed else None,
        )
        self.wire = bytearray()  # sent, and not yet read by the other side
        self.requests: dict[int, bytes] = {}
        self.streaming: dict[int, bool] = {}  # calls: whether more items may be sent
        self.cancelled: set[int] = set()
        self.answers: dict[int, list[Event]] = defaultdict(list)
        self.sent: dict[int, list[bytes]] = defaultdict(list)
        self.received: dict[int, list[bytes | PackedItem]] = defaultdict(list)
        self.untaken: dict[int, int] = defaultdict(int)
        self.serving: dict[int, RequestReceived] = {}
        self.served: dict[int, bytes] = {}
        self.responses: dict[int, bytes] = {}
        self.finished: set[int] = set()
        self.aborted: set[int] = set()

    # -- what the application does -----------------------------------------------------------------------------

    def request(self, size: int, *, streaming: bool) -> None:
        if not self.connection.can_request(size):
            return
        payload = _body(self.role, 0, len(self.requests), size)
        stream = self.connection.request("s", "m", payload, streaming=streaming)
        assert stream not in self.requests, "an id is never used again"
        self.requests[stream] = payload
        if streaming:
            self.streaming[stream] = True

    def send_item(self, which: int, size: int) -> None:
        streams = [stream for stream, more in self.streaming.items() if more] + list(self.serving)
        if streams:
            stream = streams[which % len(streams)]
            payload = _body(self.role, stream, len(self.sent[stream]), size)
            try:
                self.connection.send_item(stream, payload)
            except LocalProtocolError:
                assert stream in self.answers or stream in self.cancelled
            else:
                self.sent[stream].append(payload)

    def send_items(self, which: int, size: int) -> None:
        streams = [stream for place, stream in enumerate(self.serving) if not which >> place % 8 & 1]
        payload = _body(self.role, 0, which, size)
        unsent = self.connection.try_items(streams, payload)
        assert unsent == sorted(set(unsent))
        for place, stream in enumerate(streams):
            if place not in unsent:
                self.sent[stream].append(payload)

    def finish(self, which: int) -> None:
        streams = [stream for stream, more in self.streaming.items() if more]
        if streams:
            stream = streams[which % len(streams)]
            self.streaming[stream] = False
            try:
                self.connection.finish(stream)
            except LocalProtocolError:
                assert stream in self.answers or stream in self.cancelled

    def cancel(self, which: int) -> None:
        streams = [stream for stream in self.requests if stream not in self.answers]
        if streams:
            stream = streams[which % len(streams)]
            self.cancelled.add(stream)
            self.streaming.pop(stream, None)
            self.connection.cancel(stream)

    def answer(self, which: int, size: int, *, well: bool) -> None:
        streams = list(self.serving)
        if streams:
            stream = streams[which % len(streams)]
            del self.serving[stream]
            if well:
                self.responses[stream] = _body(self.role, stream, -1, size)
                self.connection.respond(stream, self.responses[stream])
            else:
                self.connection.fail(stream, failure(3010, {"filler": "x" * min(size, 20_000)}))

    def take(self, which: int) -> None:
        streams = [stream for stream, count in self.untaken.items() if count]
        if streams:
            stream = streams[which % len(streams)]
            items = self.received[stream]
            place = len(items) - self.untaken[stream]
            self.untaken[stream] -= 1
            taken = self.connection.take_item(stream, items[place])
            assert isinstance(taken, bytes)
            items[place] = taken

    def pull(self, size: int) -> None:
        self.wire += self.connection.data_to_send(size)
        self.connection.take_writable()

    # -- what it learns ----------------------------------------------------------------------------------------

    def learn(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case RequestReceived(stream=stream, payload=payload):
                    self.serving[stream] = event
                    assert stream not in self.served
                    self.served[stream] = payload
                case ItemReceived(stream=stream, payload=payload):
                    assert stream not in self.answers, "nothing comes behind an answer"
                    self.received[stream].append(payload)
                    self.untaken[stream] += 1
                case RequestFinished(stream=stream):
                    self.finished.add(stream)
                case RequestAborted(stream=stream, failure=reason):
                    self.aborted.add(stream)
                    if self.serving.pop(stream, None) is not None:
                        self.connection.fail(stream, reason)
                case CancelReceived(stream=stream):
                    assert stream in self.served
                case ResponseReceived(stream=stream) | ErrorReceived(stream=stream) | CallFailed(stream=stream):
                    self.answers[stream].append(event)
                    self.streaming.pop(stream, None)
                case Established():
                    pass
                case _:
                    raise AssertionError(f"an honest peer was found at fault: {event}")
        self.check()

    def check(self) -> None:
        connection = self.connection
        assert connection.outbox.turns.credit >= 0
        assert connection._inflow._window >= 0
        connection.outbox.settle()
        assert connection.ledger.held >= 0
        waiting = connection.outbox.size + connection.outbox.control_size
        assert connection.ledger.held + waiting == self.process.used
        connection.check()


class _Run:
    """One program of both applications and the network between them."""

    def __init__(self, seed: int, budget: int, *, grease: bool, signed: bool, packed: bool) -> None:
        self.dialer = _Side(Role.DIALER, seed, budget, grease=grease, signed=signed, packed=packed)
        self.acceptor = _Side(Role.ACCEPTOR, seed, budget, grease=grease, signed=signed, packed=packed)
        self.now = 0.0

    def step(self, operation: int, first: int, second: int) -> None:
        mine, theirs = (self.dialer, self.acceptor) if operation & 1 else (self.acceptor, self.dialer)
        self.act(mine, theirs, operation, first, second)
        mine.check()
        theirs.check()

    def act(self, mine: _Side, theirs: _Side, operation: int, first: int, second: int) -> None:
        size = SIZES[second % len(SIZES)]
        match operation >> 1 & 15:
            case 0 | 1:
                mine.request(size, streaming=bool(first & 1))
            case 2:
                mine.send_item(first, size)
            case 3:
                mine.send_items(first, size)
            case 4:
                mine.finish(first)
            case 5:
                mine.answer(first, size, well=True)
            case 6:
                mine.answer(first, size, well=bool(second & 1))
            case 7:
                mine.cancel(first)
            case 8 | 9:
                mine.take(first)
            case 10 | 11:
                mine.pull(1 + first * first)
            case 12:
                self.deliver(mine, theirs, 1 + first)
            case 13:
                self.deliver(mine, theirs, first * 512)
            case 14:
                mine.pull(1 << 18)
                self.deliver(mine, theirs, 1 << 18)
            case _:
                self.now += first / 100_000  # no time-out is due in any program
                mine.learn(mine.connection.tick(self.now))

    def deliver(self, sender: _Side, receiver: _Side, size: int) -> None:
        data = bytes(sender.wire[:size])
        del sender.wire[:size]
        receiver.learn(receiver.connection.receive_data(data, self.now))

    def end(self) -> None:
        """Let both applications take everything and answer everything, until nothing is under way."""
        while self._end_step():
            pass

    def _end_step(self) -> bool:
        busy = False
        for mine, theirs in ((self.dialer, self.acceptor), (self.acceptor, self.dialer)):
            while any(mine.untaken.values()):
                mine.take(0)
                busy = True
            mine.pull(1 << 16)
            busy = busy or bool(mine.wire)
            self.deliver(mine, theirs, 1 << 16)
        if not busy:
            for mine in (self.dialer, self.acceptor):
                for stream, more in list(mine.streaming.items()):
                    if more and stream not in mine.answers:
                        mine.streaming[stream] = False
                        mine.connection.finish(stream)
                        busy = True
        if not busy:
            for mine in (self.dialer, self.acceptor):
                while mine.serving:
                    mine.answer(0, 100, well=True)
                    busy = True
        for mine in (self.dialer, self.acceptor):
            due = mine.connection._inflow.credit_due
            if due is not None:
                self.now = max(self.now, due)
                mine.learn(mine.connection.tick(self.now))
                busy = True
        return busy

    def check(self, *, lossless: bool) -> None:
        for mine, theirs in ((self.dialer, self.acceptor), (self.acceptor, self.dialer)):
            connection = mine.connection
            assert connection.open_streams == 0
            assert connection._streams._bucket.left(self.now) > 900, "an honest peer is nowhere near a flood"
            assert connection.outbox.size == 0
            assert connection.outbox.unwritten == 0
            assert connection.outbox.control_size == 0
            assert connection.outbox.turns._large == 0
            assert mine.process.used == 0
            assert not connection.unfinished
            # All credit has come back, or is owed in a sum too small to be worth a frame.
            inflow = theirs.connection._inflow
            assert inflow._withheld == 0
            assert connection.outbox.turns.credit == inflow._window
            assert inflow._window + inflow._owed == TINY["connection_window"]
            assert set(mine.answers) == set(mine.requests)
            for stream, answers in mine.answers.items():
                assert len(answers) == 1
                self.check_call(mine, theirs, stream, answers[0], lossless=lossless)

    def check_call(self, mine: _Side, theirs: _Side, stream: int, answer: Event, *, lossless: bool) -> None:
        if stream in theirs.served:
            assert theirs.served[stream] == mine.requests[stream]
        else:
            assert not lossless or stream in mine.cancelled
        items = theirs.received[stream]
        assert items == mine.sent[stream][: len(items)]
        if stream in theirs.finished and stream not in mine.cancelled:
            assert items == mine.sent[stream]
        back = mine.received[stream]
        assert back == theirs.sent[stream][: len(back)]
        if isinstance(answer, ResponseReceived):
            assert answer.payload == theirs.responses[stream]
            assert back == theirs.sent[stream]
        elif lossless:
            assert isinstance(answer, ErrorReceived)
            assert not theirs.aborted
        if isinstance(answer, CallFailed):
            assert answer.failure.code == 3007


PROGRAMS = st.lists(st.tuples(st.integers(0, 31), st.integers(0, 255), st.integers(0, 255)), min_size=20, max_size=200)


def _run(
    program: list[tuple[int, int, int]],
    seed: int,
    budget: int,
    *,
    lossless: bool,
    grease: bool = False,
    signed: bool = False,
    packed: bool = False,
) -> None:
    run = _Run(seed, budget, grease=grease, signed=signed, packed=packed)
    for step in program:
        run.step(*step)
    run.end()
    run.check(lossless=lossless)


@settings(max_examples=2 * EXAMPLES)
@given(PROGRAMS, st.integers(0, 1000), st.booleans())
def test_two_honest_machines_never_find_fault_and_lose_nothing(
    program: list[tuple[int, int, int]], seed: int, grease: bool
) -> None:
    _run(program, seed, 64 * 1024 * 1024, grease=grease, lossless=True)


@given(PROGRAMS, st.integers(0, 1000), st.booleans())
def test_nor_do_two_that_compress_and_perhaps_sign(
    program: list[tuple[int, int, int]], seed: int, signed: bool
) -> None:
    _run(program, seed, 64 * 1024 * 1024, grease=True, signed=signed, packed=True, lossless=True)


@given(PROGRAMS, st.integers(0, 1000), st.booleans())
def test_with_little_memory_calls_fail_but_nothing_leaks(
    program: list[tuple[int, int, int]], seed: int, packed: bool
) -> None:
    _run(program, seed, 1024 * 1024, signed=packed, packed=packed, lossless=False)


# -- one machine against anything ------------------------------------------------------------------------------------


def _pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:stop] for start, stop in itertools.pairwise(places)]


def _feed(connection: Connection, pieces: list[bytes]) -> list[Event]:
    """Feed a machine, and assert what must hold whatever the bytes are."""
    events: list[Event] = []
    for number, piece in enumerate(pieces):
        learned = connection.receive_data(piece, number / 1000)
        assert not learned or not events or not isinstance(events[-1], Closed), "nothing is read after the end"
        events += learned
    drain(connection)
    events += connection.tick(1000.0)
    drain(connection)
    ends = [event for event in events if isinstance(event, Closed)]
    assert len(ends) == (connection.state >= ConnectionState.CLOSING)
    if ends:
        assert events[-1] is ends[0]
        assert connection.open_streams == 0
        assert connection.receive_data(hello() + frame(PING, payload=bytes(8)), 1001.0) == []
        assert connection.tick(2000.0) == []
        assert connection.receive_eof() == []
        assert drain(connection) == b""
    return events


@settings(max_examples=2 * EXAMPLES)
@given(st.sampled_from(list(Role)), st.booleans(), st.binary(max_size=300), st.lists(st.integers(0, 1000), max_size=4))
def test_arbitrary_bytes_are_never_an_exception(role: Role, opened: bool, data: bytes, cuts: list[int]) -> None:
    connection = open_machine(role) if opened else machine(role)
    _feed(connection, _pieces(data, cuts))


_TYPES = st.sampled_from([REQUEST, ITEM, RESPONSE, ERROR, CANCEL, CREDIT, FINISH, PING, 0x22, 0x01, 0x60, 0xF1])
_BODIES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"", bytes(4), b"\0\0\0\1", b"\x7f\xff\xff\xff", bytes(8), bytes(1024), bytes(16_000)]),
)
_FRAMES = st.builds(
    frame,
    _TYPES,
    st.one_of(st.integers(0, 8), st.sampled_from([2**53 - 1, 2**53])),
    _BODIES,
    flags=st.sampled_from([0, 0, 0, 0x01, 0x08, 0x09, 0x10, 0x11, 0x02, 0x20, 0x8000]),
    metadata=st.one_of(st.none(), st.binary(max_size=20)),
    body_crc=st.one_of(st.none(), st.none(), st.just(1)),
)


@settings(max_examples=2 * EXAMPLES)
@given(st.sampled_from(list(Role)), st.lists(_FRAMES, max_size=12), st.lists(st.integers(0, 50_000), max_size=4))
def test_arbitrary_frames_are_never_an_exception_and_mean_the_same_in_any_pieces(
    role: Role, frames: list[bytes], cuts: list[int]
) -> None:
    results = []
    for pieces in (frames, _pieces(b"".join(frames), cuts)):
        connection = open_machine(role, budget=1024 * 1024)
        for _ in range(3):
            connection.request("s", "m", b"", streaming=True)
        drain(connection)
        results.append(_feed(connection, pieces))
    names = [[(type(event), getattr(event, "stream", None)) for event in result] for result in results]
    assert names[0] == names[1]


def _session() -> bytes:
    """All that an honest dialer sends in a session with a bit of everything."""
    dialer = machine(Role.DIALER)
    acceptor = machine(Role.ACCEPTOR)
    spoken = b""
    dialer.request("kv", "get", b"key", entries=b"\x01\x10" + bytes(16))
    stream = dialer.request("kv", "scan", b"", streaming=True)
    for _ in range(2):
        spoken += (data := drain(dialer))
        acceptor.receive_data(data, 0.0)
        dialer.receive_data(drain(acceptor), 0.0)
        if dialer.state is ConnectionState.OPEN and dialer.open_streams == 2:
            dialer.send_item(stream, bytes(2000))
            dialer.send_item(stream, b"")
            dialer.finish(stream)
            dialer.cancel(1)
            dialer.ping(bytes(8))
            dialer.request("kv", "set", bytes(70_000))
            dialer.go_away(1014)
    return spoken


@settings(max_examples=2 * EXAMPLES)
@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), max_size=3),
    st.lists(st.integers(0, 10**6), max_size=4),
    st.integers(0, 10**6),
)
def test_a_session_that_is_mutated_and_cut_is_never_an_exception(
    mutations: list[tuple[int, int]], cuts: list[int], end: int
) -> None:
    data = bytearray(_SESSION)
    for place, change in mutations:
        # Mostly where there is more than payload.
        data[place % (600 if place & 1 else len(data))] ^= change
    connection = machine(Role.ACCEPTOR)
    _feed(connection, _pieces(bytes(data[: len(data) - end % 200]), cuts))


_SESSION = _session()
