"""Services with plain functions: each request in a thread, bounded, and what becomes of their errors."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

import haptera
import haptera.sync
from haptera.errors import ConfigurationError, HandlerFailed, UnknownMethod

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

URL = "haptera://127.0.0.1:0"
WAIT_S = 10


class Echo(haptera.sync.Service):
    name = "echo"

    def __init__(self) -> None:
        self.running = 0
        self.most = 0
        self.begun = threading.Semaphore(0)
        self.going_on = threading.Event()
        self.cancelled = threading.Event()
        self.closed = threading.Event()
        self.closed_in = ""
        self._lock = threading.Lock()

    @haptera.sync.method
    def one(self, request: haptera.sync.Request) -> bytes:
        return request.payload

    @haptera.sync.method
    def nothing(self, request: haptera.sync.Request) -> None: ...

    @haptera.sync.method
    def many(self, request: haptera.sync.Request) -> Iterator[bytes]:
        for number in range(int(request.payload)):
            yield b"%d" % number

    @haptera.sync.method
    def endless(self, request: haptera.sync.Request) -> Iterator[bytes]:
        try:
            while True:
                yield bytes(1000)
        finally:
            self.closed_in = threading.current_thread().name
            self.closed.set()

    @haptera.sync.method
    def joined(self, request: haptera.sync.Request) -> bytes:
        return b",".join(request.items)

    @haptera.sync.method
    def doubled(self, request: haptera.sync.Request) -> Iterator[bytes]:
        for item in request.items:
            yield item * 2

    @haptera.sync.method
    def through(self, request: haptera.sync.Request) -> bytes:
        return request.peer.call("echo", "one", request.payload + b" through")

    @haptera.sync.method
    def left(self, request: haptera.sync.Request) -> bytes:
        assert request.deadline is not None
        return b"%f" % (request.deadline - time.monotonic())

    @haptera.sync.method
    def held(self, request: haptera.sync.Request) -> bytes:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.begun.release()
        self.going_on.wait(WAIT_S)
        if request.cancelled:
            self.cancelled.set()
        with self._lock:
            self.running -= 1
        return b""

    @haptera.sync.method
    def fails(self, request: haptera.sync.Request) -> bytes:
        raise {b"error": LookupError, b"stop": StopIteration, b"exit": SystemExit, b"ctrl-c": KeyboardInterrupt}[
            request.payload
        ]

    @haptera.sync.method
    def refuses(self, request: haptera.sync.Request) -> bytes:
        raise haptera.CallError(12_345, "NO_MILK", "there is no milk")


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def peer(echo: Echo) -> Iterator[haptera.sync.Peer]:
    with (
        haptera.sync.listen(URL, services=[echo], handler_threads=4) as server,
        haptera.sync.dial(server.url, services=[Echo()]) as dialled,
    ):
        yield dialled
        echo.going_on.set()


def test_a_function_answers_once_and_a_generator_with_items(peer: haptera.sync.Peer) -> None:
    assert peer.call("echo", "one", b"abc") == b"abc"
    assert peer.call("echo", "nothing") == b""
    assert list(peer.stream("echo", "many", b"5")) == [b"0", b"1", b"2", b"3", b"4"]
    assert list(peer.stream("echo", "many", b"0")) == []


def test_items_of_a_call_reach_the_handler_and_come_back(peer: haptera.sync.Peer) -> None:
    threads: set[int] = set()

    def source() -> Iterator[bytes]:
        for number in range(300):
            threads.add(threading.get_ident())
            yield b"%d" % number

    assert peer.call("echo", "joined", items=source()) == b",".join(b"%d" % number for number in range(300))
    assert list(peer.stream("echo", "doubled", items=source())) == [b"%d" % number * 2 for number in range(300)]
    assert threads == {threading.get_ident()}


def test_the_error_of_the_items_is_the_error_of_the_call(peer: haptera.sync.Peer) -> None:
    def source() -> Iterator[bytes]:
        yield b"1"
        raise LookupError("dry")

    with pytest.raises(LookupError, match="dry"):
        peer.call("echo", "joined", items=source())
    assert peer.call("echo", "one", b"afterwards") == b"afterwards"


def test_a_handler_calls_the_side_that_has_called_it(peer: haptera.sync.Peer) -> None:
    assert peer.call("echo", "through", b"all the way") == b"all the way through"


def test_a_request_has_the_deadline_of_its_caller(peer: haptera.sync.Peer) -> None:
    assert 1 < float(peer.call("echo", "left", timeout=3.0)) < 3


@pytest.mark.parametrize("kind", [b"error", b"stop", b"exit", b"ctrl-c"])
def test_a_handler_that_raises_fails_its_request_and_nothing_else(peer: haptera.sync.Peer, kind: bytes) -> None:
    """Traps: no future takes StopIteration, so its request would never end; SystemExit would end the loop."""
    with pytest.raises(HandlerFailed):
        peer.call("echo", "fails", kind)
    assert peer.call("echo", "one", b"afterwards") == b"afterwards"


def test_a_handler_gives_its_caller_an_error_of_the_application(peer: haptera.sync.Peer) -> None:
    with pytest.raises(haptera.HapteraError, match="there is no milk") as caught:
        peer.call("echo", "refuses")
    assert caught.value.code == 12_345


def test_a_method_that_is_not_marked_is_unknown(peer: haptera.sync.Peer) -> None:
    with pytest.raises(UnknownMethod):
        peer.call("echo", "__init__")


def test_requests_are_handled_at_once_and_no_more_than_there_are_threads(peer: haptera.sync.Peer, echo: Echo) -> None:
    with ThreadPoolExecutor(8) as threads:
        calls = [threads.submit(peer.call, "echo", "held") for _ in range(8)]
        for _ in range(4):
            assert echo.begun.acquire(timeout=WAIT_S)
        assert not echo.begun.acquire(timeout=0.2)  # the fifth, which would be there by now
        assert echo.running == 4
        echo.going_on.set()
        assert [call.result() for call in calls] == [b""] * 8
    assert echo.most == 4


def test_a_cancelled_request_keeps_its_place_until_its_handler_has_ended(echo: Echo) -> None:
    """Trap: cancel floods that free slots while handlers still run."""
    with haptera.sync.listen(URL, services=[echo]) as server, haptera.sync.dial(server.url) as peer:
        with pytest.raises(haptera.DeadlineExceeded):
            peer.call("echo", "held", timeout=0.05)
        assert echo.begun.acquire(timeout=WAIT_S)
        assert peer.call("echo", "one", b"meanwhile") == b"meanwhile"
        [accepted] = server.peers
        assert (accepted.serving, echo.running) == (1, 1)
        echo.going_on.set()
        assert echo.cancelled.wait(WAIT_S)
        while accepted.serving:
            time.sleep(0.001)


def test_a_stream_that_is_left_closes_the_generator(peer: haptera.sync.Peer, echo: Echo) -> None:
    with peer.stream("echo", "endless") as items:
        assert len(next(items)) == 1000
    assert echo.closed.wait(WAIT_S)
    assert echo.closed_in.startswith("haptera-handler")
    assert peer.call("echo", "one", b"afterwards") == b"afterwards"


def test_a_new_peer_is_met_in_a_thread_that_may_call_it() -> None:
    met: list[bytes] = []
    done = threading.Event()

    def meet(peer: haptera.sync.Peer) -> None:
        met.append(peer.call("echo", "one", b"welcome"))
        done.set()

    with (
        haptera.sync.listen(URL, on_peer=meet) as server,
        haptera.sync.dial(server.url, services=[Echo()]) as peer,
    ):
        assert done.wait(WAIT_S)
        assert [each.established for each in server.peers] == [True]
        assert peer.services == ("session", "echo")
    assert met == [b"welcome"]


def test_an_error_of_on_peer_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    raised = threading.Event()

    def meet(_: haptera.sync.Peer) -> None:
        raised.set()
        raise LookupError

    with haptera.sync.listen(URL, on_peer=meet) as server, haptera.sync.dial(server.url) as peer:
        peer.ready()
        assert raised.wait(WAIT_S)
        while not caplog.records:
            time.sleep(0.001)
    assert [record.message for record in caplog.records] == ["on_peer_failed"]


def test_the_threads_of_handlers_end_with_the_server() -> None:
    with haptera.sync.listen(URL, services=[Echo()]) as server, haptera.sync.dial(server.url) as peer:
        peer.call("echo", "one", b"")
        handlers = [each for each in threading.enumerate() if each.name.startswith("haptera-handler")]
        assert handlers
    for each in handlers:
        each.join(WAIT_S)
        assert not each.is_alive()


@pytest.mark.parametrize("services", [Echo, [Echo], [haptera.Service()], [7], 7])
@pytest.mark.parametrize("begin", [haptera.sync.listen, haptera.sync.dial])
def test_services_that_cannot_be_hosted_are_refused(begin: Callable[..., Any], services: Any) -> None:
    with pytest.raises(ConfigurationError, match="services"):
        begin(URL, services=services)


@pytest.mark.parametrize("count", [0, -1, True, 1.5])
def test_a_number_of_threads_that_makes_no_sense_is_refused(count: Any) -> None:
    with pytest.raises(ConfigurationError, match="handler_threads"):
        haptera.sync.listen(URL, handler_threads=count)


def test_coroutines_are_no_methods_for_threads() -> None:
    with pytest.raises(TypeError, match=r"haptera\.method"):

        @haptera.sync.method  # type: ignore[type-var]
        async def wrong(self: object, request: haptera.sync.Request) -> bytes:
            return b""
