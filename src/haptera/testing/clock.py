"""Virtual time: an event loop whose clock jumps to the next timer as soon as nothing is left to do.

Time-outs of half a minute take no time, and never race with the machine: a test depends on its seed alone.
The loop's network is in memory (`haptera.testing.network`), work for a thread runs on the loop itself, and all else
that would reach outside is refused.
"""

from __future__ import annotations

import asyncio
import functools
import os
import random
import selectors
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar, overload

from haptera.testing.network import Network, SimulatedNetwork
from haptera.transport import attach

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping

__all__ = ["NotSimulated", "Stalled", "VirtualClockLoop", "run", "virtual_clock"]

T = TypeVar("T")
_Test = TypeVar("_Test", bound="Callable[..., Coroutine[Any, Any, Any]]")

#: Virtual seconds that a run may last. A connection that keeps itself alive by PINGs would go on for ever; a week is
#: longer than anything is kept or waited for, and passes in seconds.
TIME_LIMIT_S: Final = 7 * 86_400.0

#: Turns of the loop without any time passing, after which it is taken to spin: some ten real seconds.
TURNS_MAX: Final = 1_000_000

_TASKS_SHOWN_MAX: Final = 50


class Stalled(RuntimeError):
    """Nothing will ever happen again, or only the same for ever: a hang, as a virtual clock shows it.

    The message names every task and where it waits.
    """


class NotSimulated(RuntimeError):
    """A program on a virtual clock has asked for a thing with real time: a socket, a subprocess, a thread."""


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """An event loop on virtual time. ``time()`` begins at 0 and is in virtual seconds.

    ``network`` is what ``getaddrinfo``, ``create_connection``, ``create_server`` and their Unix counterparts reach, and
    with them ``haptera.listen`` and ``haptera.dial``; other sockets, TLS, pipes, subprocesses and signals raise
    `NotSimulated`.
    ``run_in_executor`` runs its function on the loop's own thread. A thread that the program itself starts raises
    `NotSimulated` when time would pass, because time can't wait for it; with ``allow_threads`` it does not, and
    all that the thread does comes too late or not at all.

    Raises `Stalled` out of ``run_forever`` when there is nothing to wait for, after ``time_limit`` virtual seconds,
    and when a million turns pass without time.
    """

    def __init__(self, *, time_limit: float = TIME_LIMIT_S, allow_threads: bool = False) -> None:
        self.network: Network = Network()
        self._now = 0.0
        self._slept = 0.0
        self._turns = 0
        self._time_limit = time_limit
        self._threads: set[threading.Thread] | None = None
        self._allow_threads = allow_threads
        super().__init__(_Clockwork(self))
        attach(self, SimulatedNetwork())  # `haptera.listen` asks the kernel for no address

    def time(self) -> float:
        """Return virtual seconds since the loop was made."""
        return self._now

    def boot_time_ns(self) -> int:
        """Return the nanoseconds since the loop was made, those in which the machine slept included."""
        return round((self._now + self._slept) * 1e9)

    def sleep_machine(self, seconds: float) -> None:
        """Have the machine sleep: no timer comes due by it, and the clocks that count sleep go on."""
        self._slept += seconds

    @property
    def timers(self) -> list[float]:
        """When each timer that is set is due, in order, as things stand."""
        return sorted(timer.when() for timer in self._scheduled if not timer.cancelled())  # type: ignore[attr-defined]

    def run_forever(self) -> None:
        """Run until stopped. Raises `Stalled` and `NotSimulated`."""
        self._threads = set(threading.enumerate())
        self._turns = 0
        super().run_forever()

    def turn(self, timeout: float | None) -> None:
        """Let the time pass that the loop would wait for. Its selector asks for this at every turn."""
        if timeout is not None and timeout <= 0:
            self._turns += 1
            if self._turns > TURNS_MAX:
                self._stall(f"the loop has turned {TURNS_MAX:,} times without any time passing")
            return
        self._refuse_threads()
        self._turns = 0
        if timeout is None:
            self._stall("everything waits, and nothing is left that could wake it")
        self._now += timeout
        if self._now > self._time_limit:
            self._stall(f"{self._time_limit:,.0f} virtual seconds have passed")

    def _stall(self, what: str) -> NoReturn:
        raise Stalled(f"{what}\n{describe_tasks(self)}")

    def _refuse_threads(self) -> None:
        if self._allow_threads or self._threads is None:
            return
        started = [thread.name for thread in threading.enumerate() if thread not in self._threads]
        if started:
            raise NotSimulated(
                f"threads were started under a virtual clock, which can't wait for them: {', '.join(started)} "
                "(haptera.testing.node() opens a node that needs none)"
            )

    # -- the simulation ---------------------------------------------------------------------------------------------

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Run ``func`` on this thread at the next turn; it takes no time."""
        future = self.create_future()
        self.call_soon(_work, future, func, args)
        return future

    async def getaddrinfo(  # type: ignore[override]
        self, host: str | None, port: int | None, **_: Any
    ) -> list[tuple[Any, ...]]:
        """Resolve a host as the network does: to itself, unless it was given addresses."""
        await asyncio.sleep(0)
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port))
            for address in self.network.resolve(host or "")
        ]

    async def create_connection(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: str | None = None,
        port: int | None = None,
        *,
        ssl: Any = None,
        sock: socket.socket | None = None,
        **_: Any,
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        """Connect to a listener of this loop's network."""
        if ssl is not None or sock is not None:
            _refuse("create_connection() with ssl= or sock=")
        return await self.network.connect((host or "", int(port or 0)), protocol_factory)

    async def create_unix_connection(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        path: str | os.PathLike[str] | None = None,
        *,
        ssl: Any = None,
        sock: socket.socket | None = None,
        **_: Any,
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        """Connect to a listener of this loop's network."""
        if ssl is not None or sock is not None or path is None:
            _refuse("create_unix_connection() with ssl= or sock=")
        return await self.network.connect(os.fsdecode(path), protocol_factory)

    async def create_server(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: str | None = None,
        port: int | None = None,
        *,
        sock: socket.socket | None = None,
        ssl: Any = None,
        start_serving: bool = True,
        **_: Any,
    ) -> asyncio.AbstractServer:
        """Listen on this loop's network."""
        if ssl is not None or sock is not None:
            _refuse("create_server() with ssl= or sock=")
        return self.network.bind((host or "", int(port or 0)), protocol_factory, serving=start_serving)

    async def create_unix_server(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        path: str | os.PathLike[str] | None = None,
        *,
        sock: socket.socket | None = None,
        ssl: Any = None,
        start_serving: bool = True,
        **_: Any,
    ) -> asyncio.AbstractServer:
        """Listen on this loop's network."""
        if ssl is not None or sock is not None or path is None:
            _refuse("create_unix_server() with ssl= or sock=")
        return self.network.bind(os.fsdecode(path), protocol_factory, serving=start_serving)


def _work(future: asyncio.Future[Any], func: Callable[..., Any], args: tuple[Any, ...]) -> None:
    if future.done():
        return
    try:
        result = func(*args)
    except BaseException as error:  # as a thread would: the error belongs where the work is awaited
        future.set_exception(error)
    else:
        future.set_result(result)


def _refuse(what: str) -> NoReturn:
    raise NotSimulated(f"{what} is not simulated on a virtual clock: it has real time")


def _refusal(name: str) -> Any:
    def refuse(self: VirtualClockLoop, *args: Any, **options: Any) -> NoReturn:
        _refuse(f"{name}()")

    refuse.__name__ = name
    return refuse


for _name in (
    *("add_reader", "add_writer", "add_signal_handler", "connect_accepted_socket", "connect_read_pipe"),
    *("connect_write_pipe", "create_datagram_endpoint", "getnameinfo", "sendfile", "sock_accept"),
    *("sock_connect", "sock_recv", "sock_recv_into", "sock_recvfrom", "sock_recvfrom_into", "sock_sendall"),
    *("sock_sendfile", "sock_sendto", "start_tls", "subprocess_exec", "subprocess_shell"),
):
    setattr(VirtualClockLoop, _name, _refusal(_name))


class _Clockwork(selectors.BaseSelector):
    """A selector that waits for nothing: asked to, it moves the loop's clock on.

    It watches one descriptor, the loop's own wake-up pipe, and never looks at it: a wake-up from the loop's own thread
    is in its queue already.
    """

    def __init__(self, loop: VirtualClockLoop) -> None:
        self._loop = loop
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        if self._keys:
            _refuse("a socket")
        descriptor = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        key = self._keys[fileobj] = selectors.SelectorKey(fileobj, descriptor, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._loop.turn(timeout)
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys


def run(main: Coroutine[Any, Any, T], *, seed: int | None = None, time_limit: float = TIME_LIMIT_S) -> T:
    """Run a coroutine to its end on a virtual clock, as ``asyncio.run`` does on the real one, and return its result.

    With ``seed`` all that is random is drawn from it meanwhile, in the whole process: the functions of ``random``
    (whose state is put back), ``os.urandom`` and its users, such as ``secrets`` and ``uuid.uuid4``. So the
    same seed gives the same run (across processes too where PYTHONHASHSEED is fixed); an exception carries it as a
    note.

    Raises the error of ``main``; `Stalled` when it would never end, or not before ``time_limit`` virtual seconds;
    `NotSimulated` when it reaches outside.
    """
    try:
        with _seeded(seed):
            return _run(main, time_limit)
    except BaseException as error:
        if seed is not None:
            error.add_note(f"on a virtual clock with seed {seed}")
        raise


def _run(main: Coroutine[Any, Any, T], time_limit: float) -> T:
    runner = asyncio.Runner(loop_factory=lambda: VirtualClockLoop(time_limit=time_limit))
    try:
        result = runner.run(main)
    except BaseException:
        _abandon(runner)
        raise
    runner.close()
    return result


def _abandon(runner: asyncio.Runner) -> None:
    """Close a loop that has failed. A task that does not take its cancellation is left where it is: the first error
    counts.
    """
    loop = runner.get_loop()
    try:
        runner.close()
    except (Stalled, NotSimulated):
        for task in asyncio.all_tasks(loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # no news


@overload
def virtual_clock(test: _Test) -> Callable[..., None]: ...
@overload
def virtual_clock(
    *, seed: int | None = None, time_limit: float = TIME_LIMIT_S
) -> Callable[[_Test], Callable[..., None]]: ...
def virtual_clock(
    test: _Test | None = None, *, seed: int | None = None, time_limit: float = TIME_LIMIT_S
) -> Callable[..., Any]:
    """Have a test that is a coroutine function run on a virtual clock, as `run` does: a decorator.

    It becomes a plain function with the same arguments, so pytest needs no plugin to run it, and fixtures of a loop in
    real time are not for it.
    """
    if test is None:
        return functools.partial(virtual_clock, seed=seed, time_limit=time_limit)

    @functools.wraps(test)
    def decorated(*args: Any, **options: Any) -> None:
        run(test(*args, **options), seed=seed, time_limit=time_limit)

    return decorated


@contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    """Draw all randomness of the process from ``seed``; None leaves it as it is."""
    if seed is None:
        yield
        return
    state = random.getstate()
    sources = ((os, "urandom"), (random, "_urandom"))  # the second is where random.SystemRandom has it from
    before = [getattr(module, name) for module, name in sources]
    drawn = random.Random(seed)
    random.seed(seed)
    try:
        for module, name in sources:
            setattr(module, name, drawn.randbytes)
        yield
    finally:
        for (module, name), function in zip(sources, before, strict=True):
            setattr(module, name, function)
        random.setstate(state)


def describe_tasks(loop: asyncio.AbstractEventLoop) -> str:
    """Return a line for each task that is not done: its name, and where it waits, from the outside in."""
    tasks = sorted(asyncio.all_tasks(loop), key=lambda task: (len(task.get_name()), task.get_name()))
    lines = [f"  {task.get_name()} waits in {_where(task)}" for task in tasks[:_TASKS_SHOWN_MAX]]
    if len(tasks) > len(lines):
        lines.append(f"  and {len(tasks) - len(lines)} more")
    return "\n".join(lines) or "  there is no task"


def _where(task: asyncio.Task[Any]) -> str:
    awaited: Any = task.get_coro()
    places = []
    while awaited is not None:
        frame = next((found for name in _FRAMES if (found := getattr(awaited, name, None)) is not None), None)
        if frame is not None:
            code = frame.f_code
            places.append(f"{code.co_qualname} ({os.path.basename(code.co_filename)}:{frame.f_lineno})")
        awaited = next((found for name in _AWAITED if (found := getattr(awaited, name, None)) is not None), None)
    return " > ".join(places) or repr(task.get_coro())


_FRAMES: Final = ("cr_frame", "gi_frame", "ag_frame")
_AWAITED: Final = ("cr_await", "gi_yieldfrom", "ag_await")
