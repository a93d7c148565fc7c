"""Every cell of the law of a stream, for frames that are sent and for frames that arrive (protocol, section 3).

The expected law is written down here from the text of the specification; the code's own table is not looked at.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

import pytest

from haptera.connection import Role
from haptera.connection.events import Closed
from haptera.connection.stream_halves import ReceivingHalf, SendingHalf
from haptera.connection.stream_law import HalfState
from haptera.errors import LocalProtocolError, RemoteProtocolError, failure
from haptera.wire.frame import Frame
from haptera.wire.payload import Limits
from tests.unit.connection.machines import (
    CANCEL,
    CONTINUED,
    ERROR,
    FINISH,
    ITEM,
    MORE,
    REQUEST,
    RESPONSE,
    STREAMING,
    Pair,
    own,
    receive,
    shaken,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from haptera.connection import Connection

#: Below it a message leaves in one frame.
FRAME: Final = 16 * 1024
LARGE: Final = bytes(20 * FRAME)  # so that a turn does not send all of it

_TYPES: Final = (REQUEST, ITEM, RESPONSE, ERROR, CANCEL, FINISH)
_FLAGS: Final = tuple(
    sum(flags) for count in range(4) for flags in itertools.combinations((MORE, CONTINUED, STREAMING), count)
)
_PARTS: Final = {"whole": 0, "first": MORE, "middle": MORE | CONTINUED, "last": CONTINUED}
_NAMES: Final = {"REQUEST": REQUEST, "ITEM": ITEM, "RESPONSE": RESPONSE, "ERROR": ERROR}

#: In each state, the frames that section 3 allows and where they lead. A name alone is a frame that is no message.
_ALLOWED: Final = {
    HalfState.UNUSED: {
        "REQUEST whole": HalfState.COMPLETE,
        "REQUEST first": HalfState.REQUEST_BEGUN,
        "REQUEST whole STREAMING": HalfState.STREAMING,
        "REQUEST first STREAMING": HalfState.STREAMING_REQUEST_BEGUN,
    },
    HalfState.REQUEST_BEGUN: {
        "REQUEST middle": HalfState.REQUEST_BEGUN,
        "REQUEST last": HalfState.COMPLETE,
        "CANCEL": HalfState.REQUEST_BEGUN,
    },
    HalfState.STREAMING_REQUEST_BEGUN: {
        "REQUEST middle": HalfState.STREAMING_REQUEST_BEGUN,
        "REQUEST last": HalfState.STREAMING,
        "CANCEL": HalfState.STREAMING_REQUEST_BEGUN,
    },
    HalfState.STREAMING: {
        "ITEM whole": HalfState.STREAMING,
        "ITEM first": HalfState.STREAMED_ITEM_BEGUN,
        "FINISH": HalfState.COMPLETE,
        "CANCEL": HalfState.STREAMING,
    },
    HalfState.STREAMED_ITEM_BEGUN: {
        "ITEM middle": HalfState.STREAMED_ITEM_BEGUN,
        "ITEM last": HalfState.STREAMING,
        "CANCEL": HalfState.STREAMED_ITEM_BEGUN,
    },
    HalfState.COMPLETE: {"CANCEL": HalfState.COMPLETE},
    HalfState.OPEN: {
        "ITEM whole": HalfState.OPEN,
        "ITEM first": HalfState.ITEM_BEGUN,
        "RESPONSE whole": HalfState.ENDED,
        "RESPONSE first": HalfState.RESPONSE_BEGUN,
        "ERROR whole": HalfState.ENDED,
        "ERROR first": HalfState.ERROR_BEGUN,
    },
    HalfState.ITEM_BEGUN: {
        "ITEM middle": HalfState.ITEM_BEGUN,
        "ITEM last": HalfState.OPEN,
        "ERROR whole": HalfState.ENDED,
        "ERROR first": HalfState.ERROR_BEGUN,
    },
    HalfState.RESPONSE_BEGUN: {
        "RESPONSE middle": HalfState.RESPONSE_BEGUN,
        "RESPONSE last": HalfState.ENDED,
        "ERROR whole": HalfState.ENDED,
        "ERROR first": HalfState.ERROR_BEGUN,
    },
    HalfState.ERROR_BEGUN: {
        "ERROR middle": HalfState.ERROR_BEGUN,
        "ERROR last": HalfState.ENDED,
    },
    HalfState.ENDED: {},
}


def _expected(state: HalfState) -> dict[tuple[int, int], HalfState]:
    cells = {}
    for text, following in _ALLOWED[state].items():
        name, *rest = text.split()
        type_ = {"CANCEL": CANCEL, "FINISH": FINISH}.get(name) or _NAMES[name]
        flags = _PARTS[rest[0]] if rest else 0
        cells[type_, flags | (STREAMING if "STREAMING" in rest else 0)] = following
    return cells


def _frame(type_: int, flags: int) -> Frame:
    return Frame(type_, flags, 1, b"", b"", 0, 0)


@pytest.mark.parametrize("ignored", [0, 0x02, 0x04, 0x8000])
@pytest.mark.parametrize("state", list(HalfState))
def test_each_frame_in_each_state_leads_to_the_same_state_sent_and_received(state: HalfState, ignored: int) -> None:
    expected = _expected(state)
    for type_, flags in itertools.product(_TYPES, _FLAGS):
        following = expected.get((type_, flags))
        sending, receiving = SendingHalf(1, 0, state, state), ReceivingHalf(1, 0, state)
        if following is not None:
            sending.send(type_, flags | ignored)
            receiving.receive(_frame(type_, flags | ignored))
            assert (sending.state, receiving.state) == (following, following)
            continue
        with pytest.raises(LocalProtocolError, match=state.name) as local:
            sending.send(type_, flags | ignored)
        with pytest.raises(RemoteProtocolError, match=state.name) as remote:
            receiving.receive(_frame(type_, flags | ignored))
        with pytest.raises(RemoteProtocolError):
            receiving.check(_frame(type_, flags | ignored))
        assert (local.value.code, remote.value.code) == (1008, 1008)
        assert (sending.state, receiving.state) == (state, state)


@pytest.mark.parametrize("state", list(HalfState))
def test_a_decision_is_judged_by_the_state_that_all_decisions_lead_to(state: HalfState) -> None:
    expected = _expected(state)
    for type_ in _TYPES:
        half = SendingHalf(1, 0, HalfState.UNUSED, state)
        following = expected.get((type_, 0))
        if following is None:
            with pytest.raises(LocalProtocolError):
                half.check_decision(type_)
            with pytest.raises(LocalProtocolError):
                half.decide(type_)
        else:
            half.check_decision(type_)
            assert half.decided is state
            half.decide(type_)
        assert half.decided is (following or state)
        assert half.state is HalfState.UNUSED


# -- the commands of a connection, in each state of the half that they concern ---------------------------------------


def _pair() -> Pair:
    limits = Limits(max_frame=FRAME, stream_window=FRAME, connection_window=4 * FRAME)
    return shaken(limits=limits)


def _deliver(pair: Pair, sender: Connection, size: int) -> None:
    other = pair.acceptor if sender is pair.dialer else pair.dialer
    events = receive(other, sender.data_to_send(size), pair.now)
    (pair.acceptor_events if other is pair.acceptor else pair.dialer_events).extend(events)


def _sender(pair: Pair, role: Role) -> Connection:
    return pair.dialer if role is Role.DIALER else pair.acceptor


def _request(pair: Pair, role: Role, payload: bytes = b"", *, streaming: bool = False) -> tuple[Connection, int]:
    connection = _sender(pair, role)
    stream = connection.request("s", "m", payload, streaming=streaming)
    _deliver(pair, connection, 1)
    return connection, stream


def _item_begun(pair: Pair, role: Role) -> tuple[Connection, int]:
    connection, stream = _request(pair, role, streaming=True)
    connection.send_item(stream, LARGE)
    _deliver(pair, connection, 1)
    return connection, stream


def _answering(pair: Pair, role: Role, begin: Callable[[Connection, int], object] | None) -> tuple[Connection, int]:
    """Return the machine of ``role``, which serves a request and has begun to answer it."""
    other = Role.ACCEPTOR if role is Role.DIALER else Role.DIALER
    _, stream = _request(pair, other)
    connection = _sender(pair, role)
    if begin is not None:
        begin(connection, stream)
        _deliver(pair, connection, 1)
    return connection, stream


_LARGE_FAILURE: Final = failure(4001, {"filler": "x" * len(LARGE)})

#: How each state of a sending half is reached by commands, on a pair of machines.
_WAYS: Final[dict[HalfState, Callable[[Pair, Role], tuple[Connection, int]]]] = {
    HalfState.COMPLETE: _request,
    HalfState.REQUEST_BEGUN: lambda pair, role: _request(pair, role, LARGE),
    HalfState.STREAMING_REQUEST_BEGUN: lambda pair, role: _request(pair, role, LARGE, streaming=True),
    HalfState.STREAMING: lambda pair, role: _request(pair, role, streaming=True),
    HalfState.STREAMED_ITEM_BEGUN: _item_begun,
    HalfState.OPEN: lambda pair, role: _answering(pair, role, None),
    HalfState.ITEM_BEGUN: lambda pair, role: _answering(pair, role, lambda each, stream: each.send_item(stream, LARGE)),
    HalfState.RESPONSE_BEGUN: lambda pair, role: _answering(
        pair, role, lambda each, stream: each.respond(stream, LARGE)
    ),
    HalfState.ERROR_BEGUN: lambda pair, role: _answering(
        pair, role, lambda each, stream: each.fail(stream, _LARGE_FAILURE)
    ),
}

_COMMANDS: Final[dict[str, Callable[[Connection, int], object]]] = {
    "item": lambda connection, stream: connection.send_item(stream, b"item"),
    "large item": lambda connection, stream: connection.send_item(stream, LARGE),
    "tried item": lambda connection, stream: connection.try_item(stream, b"item"),
    "asked": lambda connection, stream: connection.ask_room(stream),
    "asked whether all has left": lambda connection, stream: connection.ask_left(stream),
    "finish": lambda connection, stream: connection.finish(stream),
    "cancel": lambda connection, stream: connection.cancel(stream),
    "respond": lambda connection, stream: connection.respond(stream, b"answer"),
    "respond at length": lambda connection, stream: connection.respond(stream, LARGE),
    "fail": lambda connection, stream: connection.fail(stream, failure(4001)),
    "fail at length": lambda connection, stream: connection.fail(stream, _LARGE_FAILURE),
}
_ITEMS: Final = frozenset({"item", "large item", "tried item", "asked", "asked whether all has left"})
_ANSWERS: Final = frozenset({"respond", "respond at length", "fail", "fail at length"})


def _refused(state: HalfState, command: str) -> bool:
    """Whether section 3 forbids a command: ITEMs and FINISH behind the end of a request, anything behind an answer."""
    if command in _ITEMS or command == "finish":
        may_stream = {HalfState.STREAMING_REQUEST_BEGUN, HalfState.STREAMING, HalfState.STREAMED_ITEM_BEGUN}
        may_answer = {HalfState.OPEN, HalfState.ITEM_BEGUN} if command in _ITEMS else set()
        return state not in may_stream | may_answer
    return command in _ANSWERS and state in {HalfState.RESPONSE_BEGUN, HalfState.ERROR_BEGUN}


def _halves(pair: Pair, connection: Connection, stream: int) -> tuple[SendingHalf, ReceivingHalf]:
    other = pair.acceptor if connection is pair.dialer else pair.dialer
    mine, theirs = ({**each._streams.calls, **each._streams.serves}[stream] for each in (connection, other))
    assert mine.own is not theirs.own
    return mine.sending, theirs.receiving


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("state", list(_WAYS))
def test_both_sides_know_the_state_of_a_half_by_the_frames_that_were_sent(state: HalfState, role: Role) -> None:
    pair = _pair()
    connection, stream = _WAYS[state](pair, role)
    sending, receiving = _halves(pair, connection, stream)
    assert (sending.state, receiving.state) == (state, state)
    pair.dialer.check()
    pair.acceptor.check()


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("command", list(_COMMANDS))
@pytest.mark.parametrize("state", list(_WAYS))
def test_a_command_in_a_state_is_sent_as_the_law_allows_or_refused_and_changes_nothing(
    state: HalfState, command: str, role: Role
) -> None:
    pair = _pair()
    connection, stream = _WAYS[state](pair, role)
    sending, _ = _halves(pair, connection, stream)
    before = sending.state, sending.decided, sending.queued, connection.outbox.size
    if _refused(state, command):
        with pytest.raises(LocalProtocolError) as refused:
            _COMMANDS[command](connection, stream)
        assert refused.value.code == 1008
        assert (sending.state, sending.decided, sending.queued, connection.outbox.size) == before
    else:
        _COMMANDS[command](connection, stream)
    connection.check()
    # Nothing that left is a fault for the other side, and both agree wherever the stream goes on.
    for _ in range(20):
        pair.step()
        pair.dialer.check()
        pair.acceptor.check()
    assert not [event for event in pair.dialer_events + pair.acceptor_events if isinstance(event, Closed)]
    streams = [{**each._streams.calls, **each._streams.serves} for each in (pair.dialer, pair.acceptor)]
    assert streams[0].keys() == streams[1].keys()
    for id_ in streams[0]:
        for one, other in (streams, streams[::-1]):
            assert one[id_].sending.state is other[id_].receiving.state


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("command", ["item", "large item", "tried item", "asked", "finish"])
@pytest.mark.parametrize("state", [state for state in _WAYS if state < HalfState.OPEN])
def test_nothing_is_sent_behind_a_cancel(state: HalfState, command: str, role: Role) -> None:
    pair = _pair()
    connection, stream = _WAYS[state](pair, role)
    connection.cancel(stream)
    with pytest.raises(LocalProtocolError) as refused:
        _COMMANDS[command](connection, stream)
    assert refused.value.code == 1008
    before = connection.outbox.size
    connection.cancel(stream)
    assert connection.outbox.size == before, "a second CANCEL would be for nothing"
    connection.check()


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("command", list(_COMMANDS))
def test_on_a_stream_that_has_ended_answers_are_nothing_and_the_rest_is_refused(role: Role, command: str) -> None:
    pair = _pair()
    connection, stream = _answering(pair, role, lambda each, stream: each.respond(stream, b""))
    assert stream == own(Role.ACCEPTOR if role is Role.DIALER else Role.DIALER)
    if command in _ANSWERS or command == "cancel":
        _COMMANDS[command](connection, stream)
    else:
        with pytest.raises(LocalProtocolError):
            _COMMANDS[command](connection, stream)
    assert connection.data_to_send(1 << 20) == b""
    connection.check()
