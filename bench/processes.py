"""The servers under measurement: each in a process and a directory of its own, gone when the block is left."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

START_SECONDS_MAX = 600


@contextlib.contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """A directory on the disk that is measured. Not the system's temporary one, which may be memory."""
    parent.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix="bench-", dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def cpu_seconds(pid: int | None = None) -> float:
    """Seconds of the processor that a process has taken, all its threads together: this one, unless one is named."""
    if pid is None:
        return time.process_time()
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Etcd(NamedTuple):
    """A running etcd."""

    port: int
    pid: int


class Node:
    """A running `haptera serve`: `url` is where, `events` what it logged until it listened."""

    def __init__(self, process: subprocess.Popen[str], events: list[dict[str, Any]]) -> None:
        self.pid = process.pid
        self.events = events
        self.url: str = events[-1]["url"]

    def event(self, name: str) -> dict[str, Any]:
        """The event of that name. Raises KeyError if it was not logged."""
        for event in self.events:
            if event["event"] == name:
                return event
        raise KeyError(name)


@contextlib.contextmanager
def node(data_dir: Path, *options: str, listen: str = "haptera://127.0.0.1:0") -> Iterator[Node]:
    """A Haptera node with its defaults (durability sync, encrypted) but without authentication, on a free port unless
    told otherwise.
    """
    command = [sys.executable, "-m", "haptera", "serve", "--data-dir", str(data_dir), "--log-format", "json"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HAPTERA_")}
    process = subprocess.Popen(
        [*command, "--no-auth", "--listen", listen, *options],
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    )
    assert process.stderr is not None
    try:
        events: list[dict[str, Any]] = []
        for line in process.stderr:
            events.append(json.loads(line))
            if events[-1]["event"] == "listening":
                break
        else:
            raise RuntimeError(f"the node ended with {process.wait()}: {events}")
        yield Node(process, events)
    finally:
        process.terminate()
        process.communicate()


def redis_version() -> str | None:
    """The version of the redis-server on PATH, or None where there is none."""
    output = _said("redis-server", "--version")
    if output is None:
        return None
    return next((word.removeprefix("v=") for word in output.split() if word.startswith("v=")), output.strip())


def etcd_version() -> str | None:
    """The version of the etcd on PATH, or None where there is none."""
    output = _said("etcd", "--version")
    return None if output is None else output.splitlines()[0].rpartition(" ")[2]


def _said(program: str, argument: str) -> str | None:
    path = shutil.which(program)
    if path is None:
        return None
    return subprocess.run([path, argument], capture_output=True, text=True, check=True).stdout


@contextlib.contextmanager
def redis_server(directory: Path) -> Iterator[int]:
    """A Redis that syncs every change before it answers (`appendfsync always`), no snapshots; gives its port."""
    directory.mkdir()
    port = free_port()
    options = {
        "bind": "127.0.0.1",
        "port": str(port),
        "dir": str(directory),
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    process = subprocess.Popen(["redis-server", *arguments], stdout=subprocess.DEVNULL)
    try:
        _wait_for_port(port, process)
        yield port
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def etcd_server(directory: Path) -> Iterator[Etcd]:
    """An etcd of one member, which syncs every change before it answers."""
    port, peers = free_port(), free_port()
    url, peers_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peers}"
    options = {
        "data-dir": str(directory),
        "listen-client-urls": url,
        "advertise-client-urls": url,
        "listen-peer-urls": peers_url,
        "initial-advertise-peer-urls": peers_url,
        "initial-cluster": f"default={peers_url}",
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    process = subprocess.Popen(["etcd", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for_port(port, process)
        yield Etcd(port, process.pid)
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < give_up:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise RuntimeError("the server does not listen")
