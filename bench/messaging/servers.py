"""The contenders' servers, each in a process of its own, which ends with the block that started it.

``python -m bench.messaging.servers NAME BROKER LOOP`` is such a process: it prints its port, and ends with its input.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from bench.messaging.contender import HOST, Contender
from bench.messaging.over_grpc import Grpc
from bench.messaging.over_haptera import Haptera, HapteraBatch
from bench.messaging.over_nats import Nats
from bench.messaging.over_zeromq import Zeromq

CONTENDERS: Final[tuple[Contender, ...]] = (Haptera(), HapteraBatch(), Grpc(), Zeromq(), Nats())
START_SECONDS_MAX: Final = 15.0


@dataclass(frozen=True)
class Running:
    """A server: where its clients connect, and the process whose memory is that of its connections."""

    contender: Contender
    port: int
    pid: int


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if name == "asyncio":
        return asyncio.new_event_loop
    import uvloop  # noqa: PLC0415 - only where it is asked for

    return uvloop.new_event_loop


@contextlib.contextmanager
def running(contender: Contender, loop: str) -> Iterator[Running]:
    """A contender's server in a new process, and for NATS the broker in another."""
    with contextlib.ExitStack() as stack:
        broker, broker_pid = stack.enter_context(_nats_server()) if contender.name == Nats.name else (0, 0)
        command = [sys.executable, "-m", "bench.messaging.servers", contender.name, str(broker), loop]
        process = stack.enter_context(_process(command))
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the server of {contender.name} ended with {process.wait()}")
        yield Running(contender, int(line), broker_pid or process.pid)


@contextlib.contextmanager
def _process(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()


@contextlib.contextmanager
def _nats_server() -> Iterator[tuple[int, int]]:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    command = ["nats-server", "--addr", HOST, "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        give_up = time.monotonic() + START_SECONDS_MAX
        while True:
            with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
                break
            if process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError("nats-server does not listen")
            time.sleep(0.02)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


async def _serve(contender: Contender, broker: int) -> None:
    serving = asyncio.current_task()
    assert serving is not None
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, serving.cancel)
    loop.add_reader(sys.stdin.fileno(), serving.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await contender.serve(lambda port: print(port, flush=True), broker)


if __name__ == "__main__":
    _name, _broker, _loop = sys.argv[1:]
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    with asyncio.Runner(loop_factory=loop_factory(_loop)) as _runner:
        _runner.run(_serve(next(each for each in CONTENDERS if each.name == _name), int(_broker)))
