"""A real Redis, which tests hold the dialect against: a process with an empty store, gone when the block is left."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.support.processes import start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: The Redis whose replies are expected is of this version at least.
VERSION_MIN: Final = 7

#: Seconds in which a Redis with an empty store listens, on a machine with much else to do.
START_SECONDS_MAX: Final = 30


def _version() -> int:
    path = shutil.which("redis-server")
    if path is None:
        return 0
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    numbers = [word.removeprefix("v=") for word in said.split() if word.startswith("v=")]
    return int(numbers[0].partition(".")[0]) if numbers else 0


#: Marks a test that needs a real Redis.
needs_redis = pytest.mark.skipif(
    _version() < VERSION_MIN, reason=f"redis-server {VERSION_MIN} or newer is not on PATH (Debian: redis-server)"
)


@contextmanager
def real_redis() -> Iterator[str]:
    """A Redis that keeps nothing on the disk. Gives the path of its socket."""
    with _directory() as directory:
        path = directory / "redis.sock"
        with _running(directory, {"port": "0", "unixsocket": str(path)}, path.exists):
            yield str(path)


@contextmanager
def real_redis_at_port() -> Iterator[str]:
    """The same at a port of 127.0.0.1. Gives its URL."""
    with _directory() as directory, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        options = {"port": str(port), "bind": "127.0.0.1", "notify-keyspace-events": "KEA"}
        with _running(directory, options, lambda: _listens(port)):
            yield f"redis://127.0.0.1:{port}"


@contextmanager
def _directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="ht-", dir="/tmp"))  # short enough for the path of a socket
    try:
        yield path
    finally:
        shutil.rmtree(path)


@contextmanager
def _running(directory: Path, options: dict[str, str], ready: Callable[[], bool]) -> Iterator[None]:
    log = directory / "log"
    all_options = {**options, "dir": str(directory), "save": "", "logfile": str(log)}
    process = start(["redis-server", *(part for name, value in all_options.items() for part in (f"--{name}", value))])
    try:
        limit = time.monotonic() + START_SECONDS_MAX
        while not ready():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < limit, "redis-server does not listen"
            time.sleep(0.01)
        yield
    finally:
        process.kill()
        process.communicate()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True
