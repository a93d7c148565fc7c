"""Authentication inside TLS: the certificate of a dialler, and the binding to that of the listener."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from haptera import dial
from haptera.errors import AuthenticationRequired, UnsupportedMechanism
from haptera.peer import EXTERNAL, PLAIN, SCRAM, Identity
from haptera.testing import virtual_clock
from tests.support.certificates import Authority, dialling, listening
from tests.unit.peer.hosts import Echo, other_side, served
from tests.unit.peer.users import NAME, PASSWORD, Users

if TYPE_CHECKING:
    from pathlib import Path

ANY_PORT = "hapteras://127.0.0.1:0"


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    authority = Authority(tmp_path)
    authority.issue("server", "localhost", "127.0.0.1")
    authority.issue("client", "worker.example")
    return authority


@virtual_clock
async def test_a_certificate_is_the_user_that_its_name_maps_to(ours: Authority) -> None:
    users = Users(SCRAM, EXTERNAL, certificates={"worker.example": "worker"})
    url = ANY_PORT + listening(ours.folder, client_ca=str(ours.path))
    async with served(url, Echo(), authenticator=users) as server:
        for auth in ("", "&auth=external"):
            async with dial(server.url + dialling(ours.path, ours.folder) + auth) as peer:
                assert await peer.call("echo", "one", b"x") == b"x"
                there = other_side(server)
                assert there.identity == Identity("worker", EXTERNAL)
                assert there.certificate_names == ("worker.example",)
    assert users.ends == [("worker", EXTERNAL, None)] * 2


@virtual_clock
async def test_a_certificate_that_maps_to_nobody_is_not_asked_for(ours: Authority) -> None:
    url = ANY_PORT + listening(ours.folder, client_ca=str(ours.path))
    async with served(url, Echo(), authenticator=Users(SCRAM, EXTERNAL)) as server:
        there = server.url + dialling(ours.path, ours.folder)
        async with dial(there) as peer:
            with pytest.raises(AuthenticationRequired):
                await peer.call("echo", "one", b"x")
        async with dial(there + "&auth=external") as peer:
            with pytest.raises(UnsupportedMechanism):
                await peer.ready()


@virtual_clock
async def test_a_password_is_proved_inside_tls(ours: Authority) -> None:
    users = Users(SCRAM, PLAIN)
    async with served(ANY_PORT + listening(ours.folder), Echo(), authenticator=users) as server:
        for auth in ("", "&auth=plain"):
            async with dial(server.url + dialling(ours.path) + auth, user=NAME, password=PASSWORD) as peer:
                assert await peer.call("echo", "one", b"x") == b"x"
    assert users.ends == [(NAME, SCRAM, None), (NAME, PLAIN, None)]
