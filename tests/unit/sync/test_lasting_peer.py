"""A peer that comes back, for threads: its calls, streams, services and callbacks over connections that end."""

from __future__ import annotations

import gc
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

import haptera.sync
from haptera.errors import ConnectionLost, HandlerFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

WAIT_S = 30


class Echo(haptera.sync.Service):
    name = "echo"

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.release = threading.Event()

    @haptera.sync.method
    def say(self, request: haptera.sync.Request) -> bytes:
        return request.payload

    @haptera.sync.method
    def hold(self, request: haptera.sync.Request) -> bytes:
        self.begun.set()
        self.release.wait(WAIT_S)
        return request.payload

    @haptera.sync.method
    def breaks(self, request: haptera.sync.Request) -> bytes:
        raise KeyError

    @haptera.sync.method
    def count(self, request: haptera.sync.Request) -> Iterator[bytes]:
        for number in range(int(request.payload)):
            yield b"%d" % number

    @haptera.sync.method
    def total(self, request: haptera.sync.Request) -> bytes:
        return b"%d" % sum(int(item) for item in request.items)

    @haptera.sync.method
    def ask_back(self, request: haptera.sync.Request) -> bytes:
        return request.peer.call("display", "show")


class Display(haptera.sync.Service):
    name = "display"

    @haptera.sync.method
    def show(self, request: haptera.sync.Request) -> bytes:
        return b"shown"


def restarted(server: haptera.sync.Server, *services: haptera.sync.Service) -> haptera.sync.Server:
    """End a server, and listen in its place again."""
    url = server.url
    server.aclose()
    return haptera.sync.listen(url, services=services)


def test_calls_and_streams_go_on_after_the_server_was_restarted() -> None:
    server = haptera.sync.listen("haptera://127.0.0.1:0", services=[Echo()])
    with haptera.sync.dial(server.url, reconnect=True) as peer:
        assert type(peer) is haptera.sync.LastingPeer
        assert peer.call("echo", "say", b"1") == b"1"
        for number in range(3):
            server = restarted(server, Echo())
            assert peer.call("echo", "say", b"%d" % number, timeout=WAIT_S) == b"%d" % number
            assert list(peer.stream("echo", "count", b"3")) == [b"0", b"1", b"2"]
        assert (peer.connected, peer.closed) == (True, False)
        assert repr(peer) == f"<haptera.sync.LastingPeer {server.url} connected>"
    assert (peer.connected, peer.closed) == (False, True)
    server.aclose()


def test_many_threads_share_it_while_its_connection_is_replaced() -> None:
    server = haptera.sync.listen("haptera://127.0.0.1:0", services=[Echo()])
    with haptera.sync.dial(server.url, reconnect=True) as peer, ThreadPoolExecutor(8) as threads:

        def say(number: int) -> bytes:
            while True:
                try:
                    return peer.call("echo", "say", b"%d" % number, timeout=WAIT_S)
                except ConnectionLost as lost:
                    if lost.outcome != "unknown":
                        raise

        said = [threads.submit(say, number) for number in range(100)]
        server = restarted(server, Echo())
        assert [each.result() for each in said] == [b"%d" % number for number in range(100)]
    server.aclose()


def test_a_call_in_flight_is_lost_with_an_unknown_outcome() -> None:
    echo = Echo()
    server = haptera.sync.listen("haptera://127.0.0.1:0", services=[echo])
    with haptera.sync.dial(server.url, reconnect=True) as peer, ThreadPoolExecutor(1) as threads:
        call = threads.submit(peer.call, "echo", "hold", b"once", timeout=WAIT_S)
        assert echo.begun.wait(WAIT_S)
        server.aclose()
        with pytest.raises(ConnectionLost) as caught:
            call.result()
        assert caught.value.outcome == "unknown"
        with pytest.raises(ConnectionLost) as caught:
            peer.call("echo", "say", timeout=0.05)
        assert caught.value.outcome == "not_applied"
        echo.release.set()


def test_items_are_taken_in_the_thread_that_waits() -> None:
    taken_in = set()

    def items() -> Iterator[bytes]:
        for number in range(4):
            taken_in.add(threading.get_ident())
            yield b"%d" % number

    with (
        haptera.sync.listen("haptera://127.0.0.1:0", services=[Echo()]) as server,
        haptera.sync.dial(server.url, reconnect=True) as peer,
    ):
        assert peer.call("echo", "total", items=items()) == b"6"
        with peer.stream("echo", "total", items=items()) as stream:
            assert list(stream) == []
            assert stream.answer is not None
            assert stream.answer.payload == b"6"
        assert taken_in == {threading.get_ident()}
        with pytest.raises(HandlerFailed):
            peer.call("echo", "breaks")


def test_its_services_are_hosted_and_its_callbacks_told_of_each_connection() -> None:
    told: list[bytes] = []
    two = threading.Semaphore(0)

    def meet(peer: haptera.sync.Peer) -> None:
        told.append(peer.call("echo", "ask_back"))  # a thread of the handlers may make calls
        two.release()

    server = haptera.sync.listen("haptera://127.0.0.1:0", services=[Echo()])
    with haptera.sync.dial(server.url, reconnect=True, services=[Display()]) as peer:
        peer.on_connect(meet)
        assert two.acquire(timeout=WAIT_S)
        server = restarted(server, Echo())
        assert two.acquire(timeout=WAIT_S)
        assert told == [b"shown", b"shown"]
        peer.ready(WAIT_S)
        assert (found := peer.peer) is not None
        assert found.call("echo", "say", b"here") == b"here"
        peer.drain()
        assert peer.closed
        assert peer.error is None
    server.aclose()


def test_one_that_is_dropped_open_is_told_and_closed() -> None:
    with haptera.sync.listen("haptera://127.0.0.1:0", services=[Echo()]) as server:
        peer = haptera.sync.dial(server.url, reconnect=True)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del peer
            gc.collect()
        assert ["haptera.sync.LastingPeer" in str(each.message) for each in caught] == [True]


def test_the_first_connection_is_dialled_for_as_long_as_there_is_time() -> None:
    with pytest.raises(ConnectionLost):
        haptera.sync.dial("haptera://127.0.0.1:1", reconnect=True, timeout=0.05)
