"""Forks: what a child gets of its parent's clients, connections, listeners, stores and testing tools.

Trap: identity or randomness drawn before a fork and shared by the children; a lock that a forked child keeps; use from
the wrong process noticed after the effect.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

import haptera
from haptera import forks
from haptera.errors import StorageError
from haptera.node.commands import ANONYMOUS, Envelope
from haptera.node.config import NodeConfig
from haptera.node.node import Node
from haptera.peer.backoff import Backoff
from haptera.peer.listen_and_dial import _process_budget
from haptera.state.operations import Set
from haptera.testing import node, node_in_thread, proxy
from tests.support.forked import child_of_a_library, in_child, living_child
from tests.unit.peer.hosts import Batches, Echo, eventually, transport_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


@pytest.fixture
def url() -> Iterator[str]:
    """A node that goes on while the test's own thread waits for a child."""
    with node_in_thread(storage="memory") as served:
        yield served


async def increment(db: haptera.Database) -> int:
    return await db.increment("n")


def in_children(count: int, work: Callable[[], object]) -> list[str]:
    return [in_child(work) for _ in range(count)]


class Noted:
    """Notes whose it is said to be."""

    def __init__(self, *, broken: bool = False) -> None:
        self.owner = 0
        self._broken = broken
        forks.watch(self)

    def disown(self, owner: int) -> None:
        if self._broken:
            raise RuntimeError("broken")
        self.owner = owner


def test_an_error_in_one_object_keeps_no_other_from_being_given_up() -> None:
    held = [Noted(broken=number % 2 == 1) for number in range(40)]
    assert in_child(lambda: {each.owner for each in held[::2]}) == str({os.getpid()})
    assert {each.owner for each in held} == {0}, "the parent gives nothing up"


def test_an_object_of_a_child_belongs_to_that_child() -> None:
    def work() -> bool:
        held = Noted()
        return in_child(lambda: held.owner) == str(os.getpid())

    assert in_child(work) == "True"


# -- clients -----------------------------------------------------------------------------------------------------------


def test_each_child_that_uses_a_client_of_before_the_fork_has_request_ids_of_its_own(url: str) -> None:
    db = haptera.connect(url)
    assert in_children(4, lambda: asyncio.run(increment(db))) == ["1", "2", "3", "4"]


def test_one_of_several_children_takes_a_lock(url: str) -> None:
    db = haptera.connect(url)

    async def take() -> str:
        try:
            await db.set("lock", str(os.getpid()), if_absent=True)
        except haptera.KeyExists:
            return "taken"
        return "mine"

    assert in_children(3, lambda: asyncio.run(take())) == ["mine", "taken", "taken"]


def test_a_child_of_a_child_has_request_ids_of_its_own(url: str) -> None:
    db = haptera.connect(url)
    both = in_child(lambda: (asyncio.run(increment(db)), in_child(lambda: asyncio.run(increment(db)))))
    assert both == "(1, '2')"


def test_a_connected_client_connects_again_in_a_child_and_its_parents_connection_goes_on(url: str) -> None:
    async def main() -> None:
        async with haptera.connect(url) as db:
            await increment(db)
            peer = db._channel._connector._current  # type: ignore[attr-defined]
            assert in_children(3, lambda: asyncio.run(increment(db))) == ["2", "3", "4"]
            assert [await increment(db) for _ in range(100)] == list(range(5, 105))
            assert db._channel._connector._current is peer  # type: ignore[attr-defined]

    asyncio.run(main())


def test_a_client_that_was_closed_before_the_fork_is_closed_in_the_child(url: str) -> None:
    async def main() -> haptera.Database:
        async with haptera.connect(url) as db:
            await increment(db)
        return db

    db = asyncio.run(main())
    assert in_child(lambda: asyncio.run(increment(db))).startswith("ConnectionLost: the client of ")


def test_a_child_of_a_client_that_drains_takes_no_calls_and_waits_for_none_of_its_parents(unused_port: int) -> None:
    loop = asyncio.new_event_loop()
    db = haptera.connect(f"haptera://127.0.0.1:{unused_port}")

    async def begin() -> tuple[asyncio.Task[Any], asyncio.Task[None]]:
        call = asyncio.ensure_future(db.get("k", timeout=600))
        await eventually(lambda: db._channel._unsettled)  # type: ignore[attr-defined]
        draining = asyncio.ensure_future(db.drain(timeout=600))
        await asyncio.sleep(0)
        return call, draining

    try:
        call, draining = loop.run_until_complete(begin())
        assert in_child(lambda: asyncio.run(increment(db))).startswith("ConnectionLost: the client of ")
        assert in_child(lambda: asyncio.run(asyncio.wait_for(db.drain(timeout=600), 10))) == "None"
        assert not call.done()
        draining.cancel()
        loop.run_until_complete(db.aclose())
        loop.run_until_complete(asyncio.gather(call, draining, return_exceptions=True))
    finally:
        loop.close()


def test_a_child_may_run_the_loop_that_its_parent_made(url: str) -> None:
    loop = asyncio.new_event_loop()
    try:
        db = haptera.connect(url)
        assert loop.run_until_complete(increment(db)) == 1
        assert in_children(2, lambda: loop.run_until_complete(increment(db))) == ["2", "3"]
        assert [loop.run_until_complete(increment(db)) for _ in range(100)] == list(range(4, 104))
        loop.run_until_complete(db.aclose())
    finally:
        loop.close()


def test_a_fork_from_another_thread_than_the_loops_begins_afresh_too(url: str) -> None:
    async def main() -> None:
        async with haptera.connect(url) as db:
            await increment(db)
            said = await asyncio.to_thread(in_children, 2, lambda: asyncio.run(increment(db)))
            assert said == ["2", "3"]
            assert await increment(db) == 4

    asyncio.run(main())


_of_module: haptera.Database


def _increment_in_pool(_: int) -> int:
    return asyncio.run(increment(_of_module))


def test_a_pool_of_forked_processes_shares_a_client_of_its_module(url: str) -> None:
    global _of_module  # noqa: PLW0603 - as a program's own module has it
    _of_module = haptera.connect(url)
    context = multiprocessing.get_context("fork")
    with context.Pool(2, maxtasksperchild=1) as pool:
        assert sorted(pool.map(_increment_in_pool, range(4), chunksize=1)) == [1, 2, 3, 4]
        pool.close()
        pool.join()


def test_children_do_not_wait_equally_long_before_they_dial_again() -> None:
    Backoff()._uniform()
    assert len(set(in_children(3, lambda: Backoff()._uniform()))) == 3


# -- connections and listeners -----------------------------------------------------------------------------------------


async def test_a_peer_refuses_to_be_used_in_a_child_before_it_sends_anything(short_path: Path) -> None:
    async with (
        haptera.listen(f"haptera+unix://{short_path}/s", services=[Echo()]) as server,
        haptera.dial(server.url) as peer,
    ):
        await peer.call("echo", "one", b"x")
        (accepted,) = server.peers
        read = accepted.bytes_received

        async def call() -> object:
            return await peer.call("echo", "one", b"from the child")

        async def close() -> object:
            await peer.drain()
            await peer.aclose()
            await server.drain()
            await server.aclose()
            return os.path.exists(f"{short_path}/s")

        refused = in_child(lambda: asyncio.run(call()))
        assert refused.startswith("WrongLoop: the connection to ")
        assert f"belongs to process {os.getpid()}, and this is process " in refused
        assert in_child(lambda: asyncio.run(close())) == "True"
        assert await peer.call("echo", "one", b"goes on") == b"goes on"
        assert accepted.bytes_received - read < 200  # of that call alone
        assert len(server.peers) == 1


async def test_a_request_of_the_parent_cannot_be_answered_in_a_child(short_path: Path) -> None:
    batches = Batches()
    async with (
        haptera.listen(f"haptera+unix://{short_path}/s", services=[batches]) as server,
        haptera.dial(server.url) as peer,
    ):
        call = asyncio.ensure_future(peer.call("batches", "anything", b""))
        await eventually(lambda: batches.requests)
        (request,) = batches.requests
        assert in_child(lambda: request.respond(b"from the child")).startswith("WrongLoop: ")
        request.respond(b"from the parent")
        assert await call == b"from the parent"


def descriptors() -> set[int]:
    """The open ones."""
    found = set()
    for descriptor in range(256):
        with suppress(OSError):
            os.fstat(descriptor)
            found.add(descriptor)
    return found


class Seen(weakref.WeakSet[Any]):
    """The objects to give up in a child. Notes its descriptors right before, when it has one thread.

    The parent's are no measure: a thread that an earlier test has left may open a file until the fork.
    """

    def __iter__(self) -> Iterator[Any]:
        self.descriptors = descriptors()
        return super().__iter__()

    def since(self) -> dict[int, str]:
        """The descriptors that were opened since then, with the name of each."""
        return {number: os.readlink(f"/proc/self/fd/{number}") for number in descriptors() - self.descriptors}


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="names descriptors by /proc, which is Linux's")
async def test_a_sockets_number_stays_taken_in_a_child_and_no_other_is(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asyncio's transport would otherwise close the file that gets the number next."""
    async with (
        haptera.listen(f"haptera+unix://{short_path}/s", services=[Echo()]) as server,
        haptera.dial(server.url) as peer,
    ):
        await peer.ready()
        socket = transport_of(peer).get_extra_info("socket").fileno()
        nothing = os.stat(os.devnull)
        assert in_child(lambda: os.path.samestat(os.fstat(socket), nothing)) == "True"
        seen = Seen(forks._process.held)
        monkeypatch.setattr(forks._process, "held", seen)
        assert in_child(seen.since) == "{}"


async def test_a_connection_ends_with_its_owner_although_a_child_lives(short_path: Path) -> None:
    async with (
        haptera.listen(f"haptera+unix://{short_path}/s", services=[Echo()]) as server,
        haptera.dial(server.url) as peer,
    ):
        await peer.call("echo", "one", b"x")
        with living_child():
            await peer.aclose()
            await eventually(lambda: not server.peers)


async def test_a_listener_ends_with_its_owner_although_a_child_lives(unused_port: int) -> None:
    url = f"haptera://127.0.0.1:{unused_port}"
    server = await haptera.listen(url)
    with living_child():
        await server.aclose()
        async with haptera.listen(url, services=[Echo()]), haptera.dial(url) as peer:
            assert await peer.call("echo", "one", b"x") == b"x"


async def test_what_connections_hold_is_not_charged_to_a_child(short_path: Path) -> None:
    async with (
        haptera.listen(f"haptera+unix://{short_path}/s", services=[Echo()]) as server,
        haptera.dial(server.url) as peer,
        peer.stream("echo", "many", b"1000000"),  # more than a window takes: the stream stays, and what it holds
    ):
        await eventually(lambda: _process_budget.used)
        assert in_child(lambda: _process_budget.used) == "0"


# -- embedded stores ---------------------------------------------------------------------------------------------------


async def test_a_store_opens_again_although_a_child_of_its_owner_lives(tmp_path: Path) -> None:
    async with haptera.open(tmp_path) as db:
        await db.set("k", b"v")
        with living_child():
            await db.aclose()
            async with haptera.open(tmp_path) as again:
                entry = await again.get("k")
    assert entry is not None
    assert entry.value == b"v"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="clone is a call of Linux")
async def test_a_store_opens_again_although_a_child_lives_that_python_did_not_fork(tmp_path: Path) -> None:
    async with haptera.open(tmp_path) as db:
        await db.set("k", b"v")
        with child_of_a_library():
            await db.aclose()
            async with haptera.open(tmp_path) as again:
                assert await again.exists("k")


OWNER = """
import asyncio, os, signal, sys, haptera
async def main():
    async with haptera.open(sys.argv[1]) as db:
        await db.set("k", b"v")
        child = os.fork()
        if child == 0:
            print("living", flush=True)
            os.read(0, 1)
            os._exit(0)
        os.waitpid(child, 0)
asyncio.run(main())
"""


async def test_a_store_opens_again_when_its_owner_was_killed_and_a_child_lives(tmp_path: Path) -> None:
    ends = asyncio.subprocess.PIPE
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "ignore", "-c", OWNER, str(tmp_path / "data"), stdin=ends, stdout=ends
    )
    assert owner.stdout is not None
    assert owner.stdin is not None
    try:
        assert await owner.stdout.readline() == b"living\n"
        owner.send_signal(signal.SIGKILL)
        await asyncio.wait_for(_ended(owner), 60)
        async with haptera.open(tmp_path / "data") as db:
            assert await db.exists("k")
    finally:
        await owner.communicate(b"x")  # the child ends, and with it the last that has the pipes open


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Wait for the process, not for its output, which its child has too."""
    while os.path.exists(f"/proc/{process.pid}/stat"):
        await asyncio.sleep(0.01)


async def test_a_child_is_told_who_has_the_store(tmp_path: Path) -> None:
    async with haptera.open(tmp_path) as db:
        await db.set("k", b"v")

        async def write() -> int:
            return await db.set("k", b"child")

        async def read() -> object:
            return await db.get("k")

        for call in (write, read):
            said = in_child(lambda call=call: asyncio.run(call()))  # type: ignore[misc]
            holder = f"process {os.getpid()}, the parent of this one"
            assert said == f"DirectoryInUse: {tmp_path}: the data directory is in use by {holder}"
        with pytest.raises(StorageError, match=f"in use by this process \\({os.getpid()}\\)"):
            await haptera.open(tmp_path).exists("k")
        assert await db.set("k", b"parent") == 2


async def test_a_child_opens_the_store_when_its_parent_has_closed_it(tmp_path: Path) -> None:
    forked, closed = os.pipe(), os.pipe()

    async def later(db: haptera.Database) -> int:
        os.write(forked[1], b"x")
        os.read(closed[0], 1)
        return await db.set("k", b"child")

    async with haptera.open(tmp_path) as db:
        await db.set("k", b"v")
        told = asyncio.create_task(asyncio.to_thread(in_child, lambda: asyncio.run(later(db))))
        await asyncio.to_thread(os.read, forked[0], 1)
    os.write(closed[1], b"x")
    assert await told == "2"
    for end in (*forked, *closed):
        os.close(end)


async def test_a_child_never_writes_to_the_log(tmp_path: Path) -> None:
    opened = await Node.open(NodeConfig(data_dir=str(tmp_path), listen=()))
    try:
        before = {path.name: path.read_bytes() for path in (tmp_path / "log").iterdir()}

        async def write() -> object:
            results: list[object] = []
            opened.commands.submit(ANONYMOUS, [Envelope(Set("k", b"v"))], results.extend)
            await opened.drain()
            await opened.aclose()
            return results

        assert "STORAGE_FAILED" in in_child(lambda: asyncio.run(write()))
        assert {path.name: path.read_bytes() for path in (tmp_path / "log").iterdir()} == before
    finally:
        await opened.aclose()


# -- testing tools -----------------------------------------------------------------------------------------------------


LEAVES = """
import asyncio, os, sys, haptera
from haptera.testing import node
async def main():
    async with node() as url, haptera.connect(url) as db:
        await db.set("k", b"v")
        child = os.fork()
        if child == 0:
            sys.exit()
        while os.waitpid(child, os.WNOHANG)[0] == 0:
            await asyncio.sleep(0.01)
        await db.set("k", b"w")
        async with haptera.connect(url) as other:
            print((await other.get("k")).value.decode())
async def outermost():
    try:
        await main()
    except SystemExit:
        os._exit(0)  # of the child, behind the ends of both blocks: it cannot end its parent's loop
asyncio.run(outermost())
"""


async def test_a_child_that_ends_within_a_block_leaves_its_parents_node_alone() -> None:
    ends = asyncio.subprocess.PIPE
    ran = await asyncio.create_subprocess_exec(sys.executable, "-W", "ignore", "-c", LEAVES, stdout=ends, stderr=ends)
    out, err = await ran.communicate()
    assert (ran.returncode, out) == (0, b"w\n"), err.decode()


async def test_a_proxy_says_in_a_child_whose_it_is_and_cuts_nothing() -> None:
    async with (
        node(storage="memory", listen="tcp") as url,
        proxy(url) as between,
        haptera.connect(between.url) as db,
    ):
        await db.set("k", b"v")

        def cut() -> str:
            said = []
            for fault in (between.sever, between.refuse, between.pause, lambda: between.delay(1.0)):
                with pytest.raises(haptera.errors.WrongLoop) as error:
                    fault()
                said.append(str(error.value))
            asyncio.run(between.aclose())
            return said[0]

        said = in_child(cut)
        assert said.startswith(f"the proxy at {between.url} belongs to process {os.getpid()}, and this is process ")
        assert await db.increment("n") == 1
        assert between.connections == 1
