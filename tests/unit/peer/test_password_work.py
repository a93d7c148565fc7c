"""The work that passwords make: bounded, shared among the places that cause it, and dropped with its connection."""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from haptera import dial
from haptera.errors import AuthenticationFailed
from haptera.peer import PLAIN, SCRAM
from haptera.peer.password_work import THREADS, WORK, PasswordWork
from haptera.peer.remote_address import Credentials, place_of
from tests.unit.peer.hosts import ANY_PORT, Echo, eventually, served
from tests.unit.peer.strangers import Stranger
from tests.unit.peer.users import NAME, PASSWORD, Users

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LOGIN = f"\0{NAME}\0{PASSWORD}".encode()


@contextmanager
def held(work: PasswordWork, threads: int = THREADS) -> Iterator[list[threading.Event]]:
    """Keep threads at work, each until its event is set or the block ends."""
    loop = asyncio.get_running_loop()
    ends = [threading.Event() for _ in range(threads)]
    for number, end in enumerate(ends):
        assert work.run(loop, f"held {number}", end.wait) is not None
    try:
        yield ends
    finally:
        for end in ends:
            end.set()


async def soon(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        await eventually(condition)


async def test_places_take_turns() -> None:
    work, done = PasswordWork(20, 10), list[str]()
    with held(work) as ends:
        waiting = [
            work.run(asyncio.get_running_loop(), name[0], lambda name=name: done.append(name))  # type: ignore[misc]
            for name in ("a1", "a2", "a3", "b1", "b2", "c1")
        ]
        ends[0].set()  # one thread does it all, so that the order is known
        await asyncio.gather(*(each for each in waiting if each is not None))
    assert done == ["a1", "b1", "c1", "a2", "b2", "a3"]


async def test_a_place_has_a_share_and_all_have_a_bound() -> None:
    work, loop = PasswordWork(7, 3), asyncio.get_running_loop()
    with held(work):
        for place in ("a", "b"):
            taken = [work.run(loop, place, int) is not None for _ in range(4)]
            assert taken == ([True, True, True, False] if place == "a" else [True, True, False, False])
        assert not work.has_room("c")
    await soon(lambda: work.has_room("a") and work.has_room("c"))


async def test_work_that_is_not_waited_for_is_not_done_and_leaves_its_place() -> None:
    work, loop, done = PasswordWork(20, 1), asyncio.get_running_loop(), list[str]()
    with held(work):
        for _ in range(3):
            waiting = work.run(loop, "a", lambda: done.append("cancelled"))
            assert waiting is not None
            assert not work.has_room("a")
            waiting.cancel()
            await soon(lambda: work.has_room("a"))
        last = work.run(loop, "a", lambda: done.append("last"))
    assert last is not None
    await last
    assert done == ["last"]


async def test_a_failure_of_the_work_is_its_result_and_leaves_its_place() -> None:
    work = PasswordWork(1, 1)
    for _ in range(2):
        failing = work.run(asyncio.get_running_loop(), "a", lambda: 1 // 0)
        assert failing is not None
        with pytest.raises(ZeroDivisionError):
            await failing


@pytest.mark.parametrize(
    ("remote", "uid", "place"),
    [
        ("192.0.2.1:5", None, "192.0.2.1"),
        ("[2001:db8::1]:5", None, "2001:db8::/64"),
        ("unix", 1000, "unix:1000"),
        ("unix", None, "unix"),
    ],
)
def test_a_place_is_a_network_or_a_user_of_the_machine(remote: str, uid: int | None, place: str) -> None:
    assert place_of(remote, None if uid is None else Credentials(1, uid, 1)) == place


async def test_the_password_of_a_connection_that_has_ended_is_not_worked_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One message for each connection that is closed at once would keep the threads busy for everyone else."""
    work, users = PasswordWork(20, 1), Users(PLAIN)
    monkeypatch.setattr("haptera.peer.entrance.WORK", work)
    place = f"unix:{os.geteuid()}"
    async with served(f"haptera+unix://{tmp_path}/s", Echo(), authenticator=users, grease=False) as server:
        with held(work):
            for _ in range(3):
                stranger = await Stranger.open(server.url)
                await stranger.send(PLAIN, LOGIN)
                await soon(lambda: not work.has_room(place))
                await stranger.raw.close()
                await soon(lambda: work.has_room(place))
            assert users.ends == [(NAME, PLAIN, "the connection ended in the middle of the exchange")] * 3
        async with dial(server.url + "?auth=plain", user=NAME, password=PASSWORD) as peer:
            assert await peer.call("echo", "one", b"x") == b"x"


async def test_a_place_without_room_is_refused_and_others_come_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, users = PasswordWork(20, 1), Users(PLAIN)
    monkeypatch.setattr("haptera.peer.entrance.WORK", work)
    async with served(f"haptera+unix://{tmp_path}/s", Echo(), authenticator=users, grease=False) as server:
        place, end = f"unix:{os.geteuid()}", threading.Event()
        assert work.run(asyncio.get_running_loop(), place, end.wait) is not None
        async with dial(server.url + "?auth=plain", user=NAME, password=PASSWORD) as peer:
            with pytest.raises(Exception, match="3007"):
                await peer.ready()
        assert users.ends == []
        monkeypatch.setattr("haptera.peer.entrance.place_of", lambda remote, credentials: "another")
        async with dial(server.url + "?auth=plain", user=NAME, password=PASSWORD) as peer:
            await peer.ready()
        end.set()


async def test_own_logins_do_not_wait_for_the_work_of_strangers() -> None:
    with held(WORK):
        async with served(ANY_PORT, Echo(), authenticator=Users(SCRAM)) as server:
            async with dial(server.url, user=NAME, password=PASSWORD) as peer:
                assert await peer.call("echo", "one", b"x") == b"x"
            async with dial(server.url, user=NAME, password="wrong") as peer:
                with pytest.raises(AuthenticationFailed):
                    await peer.ready()
