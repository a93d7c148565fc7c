"""Authentication of a dialler by a listener's users (spec/protocol.md, section 5.1)."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from haptera import Request, Server, Service, dial, method
from haptera.errors import AuthenticationFailed, AuthenticationRequired, ConnectionLost, UnsupportedMechanism
from haptera.peer import EXTERNAL, PLAIN, SCRAM, Identity
from haptera.testing import virtual_clock
from tests.unit.peer.hosts import ANY_PORT, Echo, connection_of, eventually, other_side, served
from tests.unit.peer.users import NAME, PASSWORD, Users

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class WhoAmI(Service):
    """Tells the caller's name."""

    name = "who"

    @method
    async def am_i(self, request: Request) -> bytes:
        identity = request.peer.identity
        assert identity is not None
        return f"{identity.user} by {identity.mechanism}".encode()


@asynccontextmanager
async def guarded(users: Users, url: str = ANY_PORT, **keywords: Any) -> AsyncIterator[Server]:
    async with served(url, Echo(), WhoAmI(), authenticator=users, **keywords) as server:
        yield server


@virtual_clock
async def test_a_user_that_proves_its_password_is_served_in_its_name() -> None:
    users = Users()
    async with guarded(users) as server, dial(server.url, user=NAME, password=PASSWORD) as peer:
        assert await peer.call("who", "am_i") == b"app by SCRAM-SHA-256"
        assert other_side(server).identity == Identity(NAME, SCRAM)
        assert users.ends == [(NAME, SCRAM, None)]
        assert users.asked == [NAME, NAME]  # at the beginning, and whether it is still so at the end


@virtual_clock
async def test_many_calls_of_a_first_flight_are_answered_after_the_exchange() -> None:
    async with guarded(Users()) as server, dial(server.url, user=NAME, password=PASSWORD) as peer:
        calls = [peer.call("echo", "one", str(number).encode()) for number in range(500)]
        assert await asyncio.gather(*calls) == [str(number).encode() for number in range(500)]
        assert connection_of(peer).first_flight == 64
        assert [item async for item in peer.stream("echo", "many", b"100")] == [str(n).encode() for n in range(100)]


@virtual_clock
async def test_the_credential_of_a_url_is_percent_decoded() -> None:
    async with guarded(Users()) as server:
        url = server.url.replace("//", "//app:correct%20horse%20battery@")
        async with dial(url) as peer:
            assert await peer.call("who", "am_i") == b"app by SCRAM-SHA-256"


@virtual_clock
@pytest.mark.parametrize(("name", "password"), [(NAME, "wrong"), ("nobody", PASSWORD)])
async def test_a_wrong_password_and_an_unknown_user_fail_alike(name: str, password: str) -> None:
    users = Users()
    async with guarded(users) as server, dial(server.url, user=name, password=password) as peer:
        with pytest.raises(AuthenticationFailed) as caught:
            await peer.call("echo", "one", b"x")
        lost = caught.value
        assert isinstance(lost, ConnectionLost)
        assert (lost.code, lost.details, lost.outcome) == (2002, {}, "not_applied")
        assert str(lost) == "the other side ended the connection: AUTHENTICATION_FAILED (2002): authentication failed"
        with pytest.raises(AuthenticationFailed):
            await peer.ready()
    assert [(end[0], end[1]) for end in users.ends] == [(name, SCRAM)]
    assert users.ends[0][2] is not None


@virtual_clock
async def test_a_user_that_may_not_come_in_fails_with_its_right_password() -> None:
    users = Users()
    users.admitted = False
    async with guarded(users) as server, dial(server.url, user=NAME, password=PASSWORD) as peer:
        with pytest.raises(AuthenticationFailed):
            await peer.ready()
    assert users.ends == [(NAME, SCRAM, "the user may not come in")]


@virtual_clock
async def test_a_dialler_without_a_credential_is_refused_call_by_call() -> None:
    async with guarded(Users()) as server, dial(server.url) as peer:
        for _ in range(3):
            with pytest.raises(AuthenticationRequired) as caught:
                await peer.call("echo", "one", b"x")
            assert caught.value.outcome == "not_applied"
        assert other_side(server).identity is None


@virtual_clock
async def test_a_dialler_with_a_password_trusts_no_side_that_asks_for_none() -> None:
    async with served(ANY_PORT, Echo()) as server, dial(server.url, user=NAME, password=PASSWORD) as peer:
        with pytest.raises(UnsupportedMechanism, match="asks this one for no login here"):
            await peer.call("echo", "one", b"x")


@virtual_clock
async def test_a_peer_of_a_listener_that_asks_it_for_nothing_is_the_implied_user() -> None:
    users = Users("none")
    async with guarded(users) as server, dial(server.url) as peer:
        assert await peer.call("who", "am_i") == b"implied by none"
    assert users.ends == []


async def test_a_process_of_a_unix_socket_is_the_user_of_its_uid(tmp_path: Path) -> None:
    users = Users(SCRAM, EXTERNAL)
    users.uids[os.geteuid()] = "operator"
    async with guarded(users, f"haptera+unix://{tmp_path}/s") as server:
        async with dial(server.url + "?auth=external") as peer:
            assert await peer.call("who", "am_i") == b"operator by EXTERNAL"
        async with dial(server.url) as peer:  # a process needs no option to be itself, and its first call waits
            assert await peer.call("who", "am_i") == b"operator by EXTERNAL"
        users.uids.clear()
        async with dial(server.url + "?auth=external") as peer:
            with pytest.raises(UnsupportedMechanism):
                await peer.ready()


async def test_a_password_travels_as_it_is_to_a_process_of_this_user_alone(tmp_path: Path) -> None:
    users = Users(PLAIN)
    async with guarded(users, f"haptera+unix://{tmp_path}/s") as server:
        async with dial(server.url + "?auth=plain", user=NAME, password=PASSWORD) as peer:
            assert await peer.call("who", "am_i") == b"app by PLAIN"
        async with dial(server.url + "?auth=plain", user=NAME, password="wrong") as peer:
            with pytest.raises(AuthenticationFailed):
                await peer.ready()
        async with dial(server.url, user=NAME, password=PASSWORD) as peer:
            with pytest.raises(UnsupportedMechanism):  # and never by itself
                await peer.ready()
    async with (
        guarded(users, ANY_PORT) as server,
        dial(server.url + "?auth=plain", user=NAME, password=PASSWORD) as peer,
    ):
        with pytest.raises(UnsupportedMechanism, match="not sent as it is"):
            await peer.ready()


@virtual_clock
async def test_frames_behind_an_exchange_are_signed_with_its_keys() -> None:
    async with guarded(Users(), ANY_PORT + "?signed=scram") as server:
        url = server.url + "?signed=scram"
        async with dial(url, user=NAME, password=PASSWORD) as peer:
            assert await peer.call("who", "am_i") == b"app by SCRAM-SHA-256"
            assert "hmac_sha256" in peer.capabilities
            assert [item async for item in peer.stream("echo", "many", b"30")] == [str(n).encode() for n in range(30)]
        async with dial(url, user=NAME, password="wrong") as peer:
            with pytest.raises(AuthenticationFailed):
                await peer.ready()


@virtual_clock
async def test_a_listener_calls_a_peer_that_has_proved_its_identity() -> None:
    async with (
        guarded(Users()) as server,
        dial(server.url, services=[Echo()], user=NAME, password=PASSWORD) as peer,
    ):
        await eventually(lambda: server.peers)
        called = asyncio.ensure_future(other_side(server).call("echo", "one", b"back"))
        await peer.ready()
        assert await called == b"back"


@virtual_clock
async def test_a_connection_is_half_open_until_it_has_authenticated() -> None:
    async with (
        guarded(Users()) as server,
        dial(server.url) as stranger,
        dial(server.url, user=NAME, password=PASSWORD) as peer,
    ):
        await peer.ready()
        with pytest.raises(AuthenticationRequired):
            await stranger.call("echo", "one")
        assert server.half_open == 1
        await asyncio.sleep(11)
        assert stranger.closed
        assert not peer.closed
        assert server.half_open == 0
        assert getattr(stranger.error, "code", None) == 1012
