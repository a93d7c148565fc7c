"""Authentication as a node has it by default: who comes in at which of its addresses, as whom, and who does not."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import haptera
from haptera.errors import AuthenticationFailed, AuthenticationRequired, HapteraError
from haptera.peer import dial
from haptera.security import ScramDialer, hello_binding
from haptera.state.access_operations import AddUser, SetDisabled
from haptera.testing import node
from tests.support.certificates import Authority, dialling, listening
from tests.support.planted import PASSWORD
from tests.support.planted import SIGNING_KEY as KEY
from tests.unit.node.nodes import done

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from haptera.testing import NodeUrl

pytestmark = pytest.mark.usefixtures("quick_passwords")

ANY_PORT = "haptera://127.0.0.1:0"
ADMIN = ("admin", "SCRAM-SHA-256")
encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode


@asynccontextmanager
async def served(*listen: str, **options: Any) -> AsyncIterator[NodeUrl]:
    async with node(listen=listen or ANY_PORT, no_auth=False, admin_password=PASSWORD, **options) as url:
        yield url


async def came_in(url: NodeUrl, address: str | None = None, **credential: Any) -> tuple[str, str]:
    """The user and the mechanism of a connection, as the node has them."""
    async with dial(address or url, **credential) as peer:
        user = decode(await peer.call("session", "whoami", encode([])))["user"]
        ((accepted,),) = [server.peers for server in url.server._servers if server.peers]
        assert accepted.identity is not None
        assert accepted.identity.user == user
        return user, accepted.identity.mechanism


async def test_the_administrator_comes_in_with_its_password_and_nobody_with_another_or_none() -> None:
    async with served() as url:
        assert await came_in(url, user="admin", password=PASSWORD) == ADMIN
        async with haptera.connect(url, user="admin", password=PASSWORD) as db:
            await db.set("k", b"v")
            assert (await db.status())["authentication"] is True
        for user, password in (("admin", "another password"), ("nobody", PASSWORD), ("local", PASSWORD)):
            with pytest.raises(AuthenticationFailed):
                await came_in(url, user=user, password=password)
        async with haptera.connect(url) as db:
            with pytest.raises(AuthenticationRequired):
                await db.get("k")
        values = url.node.metrics.values()
        assert (values["logins_total"], values["logins_failed_total"]) == (2, 3)


async def test_at_the_local_socket_nothing_is_asked() -> None:
    async with served() as url:
        local = url.server.urls[-1]
        async with haptera.connect(local) as db:
            await db.set("k", b"v")
        assert await came_in(url, local) == ("local", "local")


async def test_at_a_configured_unix_socket_the_user_of_the_node_has_to_log_in_like_others(short_path: Path) -> None:
    async with served(f"haptera+unix://{short_path}/s") as url:
        async with haptera.connect(url) as db:
            with pytest.raises(AuthenticationRequired):
                await db.get("k")
        assert await came_in(url, user="admin", password=PASSWORD) == ADMIN


async def test_a_process_comes_in_at_a_unix_socket_as_the_user_that_the_configuration_names(short_path: Path) -> None:
    file = short_path / "users.toml"
    file.write_text(f'[uids]\n{os.geteuid()} = "ann"\n')
    async with served(f"haptera+unix://{short_path}/s", external_users_file=str(file)) as url:
        async with haptera.connect(url) as db:
            with pytest.raises(AuthenticationRequired):
                await db.get("k")
        assert await done(url.node, AddUser("ann", None, ["admin"])) == [(True,)]
        assert await came_in(url) == ("ann", "EXTERNAL")


async def test_a_client_certificate_stands_for_the_user_of_its_first_name(tmp_path: Path) -> None:
    ours = Authority(tmp_path)
    ours.issue("server", "localhost", "127.0.0.1")
    ours.issue("client", "worker.example")
    async with served("hapteras://127.0.0.1:0" + listening(ours.folder, client_ca=str(ours.path))) as url:
        target = url.server.urls[0] + dialling(ours.path, ours.folder)
        assert await done(url.node, AddUser("worker.example", None, [])) == [(True,)]
        assert await came_in(url, target) == ("worker.example", "EXTERNAL")
        assert await came_in(url, target, user="admin", password=PASSWORD) == ADMIN
        assert await done(url.node, SetDisabled("worker.example", True)) == [(True,)]
        with pytest.raises(HapteraError):
            await came_in(url, target)


@pytest.mark.parametrize(("named", "user"), [({}, "admin"), ({"signing_user": "app"}, "app")])
async def test_who_has_the_signing_key_acts_as_one_user(
    tmp_path: Path, named: dict[str, str], user: str, caplog: pytest.LogCaptureFixture
) -> None:
    key = tmp_path / "signing.key"
    key.write_bytes(KEY)
    key.chmod(0o600)
    async with served(signing_key_file=str(key), **named) as url:
        assert await came_in(url, signing_key=KEY) == (user, "PSK")
        assert ("signing_user_unknown" in caplog.text) is (user not in url.node.access.users) is bool(named)


async def test_frames_that_the_exchange_signs_are_signed_beside_those_of_a_shared_key(tmp_path: Path) -> None:
    key = tmp_path / "signing.key"
    key.write_bytes(KEY)
    key.chmod(0o600)
    async with served(f"{ANY_PORT}?signed=scram", ANY_PORT, signing_key_file=str(key)) as url:
        by_exchange, by_key, _ = url.server.urls
        assert await came_in(url, f"{by_exchange}?signed=scram", user="admin", password=PASSWORD) == ADMIN
        assert await came_in(url, by_key, signing_key=KEY) == ("admin", "PSK")


async def salt_of(url: str, name: str) -> bytes:
    """The salt that a node shows to someone who says that it is a user."""
    exchange = ScramDialer(name, hello_binding(b"", b"", None), "n" * 20)
    async with dial(url) as peer:
        _, challenge = decode(await peer.call("session", "authenticate", encode(["SCRAM-SHA-256", exchange.first()])))
        return exchange.challenge(challenge)[0]


async def test_an_unknown_user_has_the_same_salt_after_a_restart_and_it_is_nowhere_on_the_disk(tmp_path: Path) -> None:
    salts = []
    for _ in range(2):
        async with served(data_dir=tmp_path / "d") as url:
            salts.append([await salt_of(url, name) for name in ("nobody", "admin")])
            files = [path.read_bytes() for path in (tmp_path / "d").rglob("*") if path.is_file()]
            assert not any(url.node.access.secret in content for content in files)
    assert salts[0] == salts[1]
    assert len({*salts[0], *salts[1]}) == 2
