"""Clients, peers and servers that are dropped open: one warning names what was left, and how to close it.

Trap: an unclosed client that nothing names. asyncio's own warning has the number of a descriptor.
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING, Any

import pytest

import haptera
from haptera.testing import node_in_thread
from tests.support.forked import in_child
from tests.unit.peer.hosts import Echo

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

ADVICE = "use it with 'async with', or await its aclose()"


@pytest.fixture(scope="module", params=["tcp", "unix"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    with node_in_thread(listen=request.param, storage="memory") as served:
        yield served


def warned(main: Callable[[], Coroutine[None, None, object]]) -> list[str]:
    """What is said of Haptera's own objects while ``main`` runs, and once the garbage of it is collected."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        asyncio.run(main())
        gc.collect()
        said = [str(each.message) for each in caught]
        del caught[:]  # each keeps alive what it is about
        gc.collect()
    return [message for message in said if message.startswith("unclosed haptera.")]


def test_a_served_database_that_is_dropped_is_named_once(url: str) -> None:
    async def main() -> None:
        db = await haptera.connect(url)
        await db.get("k")

    assert warned(main) == [f"unclosed haptera.Database {url}: {ADVICE}"]


def test_a_served_database_that_outlives_its_loop_is_named_once(url: str) -> None:
    left: list[haptera.Database] = []

    async def main() -> None:
        left.append(haptera.connect(url))
        await left[0].get("k")

    async def drop() -> None:
        left.clear()

    assert warned(main) == []
    assert warned(drop) == [f"unclosed haptera.Database {url}: {ADVICE}"]


def test_an_embedded_database_that_is_dropped_is_named_once(tmp_path: Path) -> None:
    async def main() -> None:
        db = await haptera.open(tmp_path / "state")
        await db.get("k")

    assert warned(main) == [f"unclosed haptera.Database {tmp_path / 'state'}: {ADVICE}"]


def test_a_peer_that_is_dropped_is_named_once(url: str) -> None:
    async def main() -> None:
        peer = await haptera.dial(url)
        await peer.call("server", "status", b"\x90")

    assert warned(main) == [f"unclosed haptera.Peer {url}: {ADVICE}"]


def test_a_server_that_is_dropped_is_named_once_for_all_of_its_connections() -> None:
    urls: list[str] = []

    async def main() -> None:
        server = await haptera.listen("haptera://127.0.0.1:0", services=[Echo()])
        urls.append(server.url)
        async with haptera.dial(server.url) as one, haptera.dial(server.url) as other:
            await asyncio.gather(one.ready(), other.ready())

    assert warned(main) == [f"unclosed haptera.Server {urls[0]}: {ADVICE}"]


@pytest.mark.parametrize("end", ["aclose", "drain"])
def test_what_was_closed_is_not_named(url: str, tmp_path: Path, end: str) -> None:
    async def main() -> None:
        db, embedded = await haptera.connect(url), await haptera.open(tmp_path / "state")
        peer, server = await haptera.dial(url), await haptera.listen("haptera://127.0.0.1:0")
        await asyncio.gather(db.get("k"), embedded.get("k"), peer.ready())
        for each in (db, embedded, peer, server):
            await getattr(each, end)()

    assert warned(main) == []


def test_a_client_that_never_connected_is_not_named(unused_port: int, tmp_path: Path) -> None:
    async def main() -> None:
        unused = [haptera.open(tmp_path / "state"), haptera.connect("haptera://127.0.0.1:1")]
        unused.clear()
        db = haptera.connect(f"haptera://127.0.0.1:{unused_port}", wait=False)
        with pytest.raises(haptera.ConnectionLost):
            await db.get("k")
        with pytest.raises(haptera.ConnectionLost):
            await haptera.dial(f"haptera://127.0.0.1:{unused_port}")

    assert warned(main) == []


def test_a_connection_that_the_other_side_has_ended_is_not_named() -> None:
    async def main() -> None:
        async with haptera.listen("haptera://127.0.0.1:0", services=[Echo()]) as server:
            peer = await haptera.dial(server.url)
            await peer.ready()
            gone = asyncio.Event()
            peer.on_close(gone.set)
        await gone.wait()

    assert warned(main) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_names_nothing_of_its_parents(url: str, tmp_path: Path) -> None:
    async def main() -> None:
        db = haptera.connect(url)
        await db.get("k")
        opened: list[Any] = [
            db,
            await haptera.open(tmp_path / "state"),
            await haptera.dial(url),
            await haptera.listen("haptera://127.0.0.1:0"),
        ]
        del db

        def drop() -> list[str]:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", ResourceWarning)
                opened.clear()
                gc.collect()
                return [str(each.message) for each in caught if "unclosed haptera." in str(each.message)]

        assert in_child(drop) == "[]"
        for each in opened:
            await each.aclose()

    assert warned(main) == []


PROGRAM = """
import asyncio, sys
import haptera

url, path = sys.argv[1:]
db, embedded = haptera.connect(url), haptera.open(path)

async def main():
    await db.set("k", b"v")
    await embedded.set("k", b"v")

asyncio.run(main())
"""


@pytest.mark.parametrize("flags", [[], ["-X", "dev"], ["-W", "error"]])
def test_the_end_of_the_interpreter_says_no_more_than_that(url: str, tmp_path: Path, flags: list[str]) -> None:
    path = str(tmp_path / "state")
    command = [sys.executable, *flags, "-c", PROGRAM, url, path]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "")
    told = [line for line in ended.stderr.splitlines() if "unclosed haptera" in line]
    assert len(told) == (2 if flags else 0), ended.stderr
    assert all(name in ended.stderr for name in ([url, path] if flags else []))
    if not flags:
        assert not ended.stderr
    assert "NoneType" not in ended.stderr
