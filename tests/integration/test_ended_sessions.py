"""Connections whose proof of identity counts no more: they end, and others go on."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Any

import pytest

import haptera
from haptera.access_rules import ITERATIONS_MIN
from haptera.errors import AuthenticationFailed
from haptera.peer import dial
from haptera.security import verifier_of
from haptera.state.access_operations import (
    AddRole,
    AddToken,
    AddUser,
    AssignRole,
    RemoveToken,
    RemoveUser,
    SetDisabled,
    SetVerifier,
    StoredVerifier,
)
from haptera.testing import node, virtual_clock
from tests.integration.test_authentication import decode, encode, served
from tests.support.planted import OTHER_PASSWORD as OTHER
from tests.support.planted import PASSWORD
from tests.unit.node.nodes import done
from tests.unit.peer.hosts import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from haptera.peer import Peer

pytestmark = pytest.mark.usefixtures("quick_passwords")


def stored(password: str, salt: bytes = b"s" * 16) -> StoredVerifier:
    made = verifier_of(password, salt, ITERATIONS_MIN)
    return StoredVerifier(made.salt, made.iterations, made.stored_key, made.server_key)


async def whoami(peer: Peer) -> str:
    return str(decode(await peer.call("session", "whoami", encode([])))["user"])


ENDS: list[tuple[Any, str]] = [
    (SetVerifier("ann", stored(OTHER)), "it has another password"),
    (SetVerifier("ann", stored(PASSWORD, b"t" * 16)), "it has another password"),
    (SetVerifier("ann", None), "it has another password"),
    (SetDisabled("ann", True), "it may not come in any more"),
    (RemoveUser("ann"), "it may not come in any more"),
]


@pytest.mark.parametrize(("change", "reason"), ENDS)
@virtual_clock
async def test_the_connections_of_a_password_end_with_it(
    change: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "haptera")
    async with served() as url:
        assert await done(url.node, AddUser("ann", stored(PASSWORD), ["admin"])) == [(True,)]
        async with (
            dial(url, user="admin", password=PASSWORD) as other,
            dial(url, user="ann", password=PASSWORD) as first,
            dial(url, user="ann", password=PASSWORD) as second,
        ):
            assert [await whoami(peer) for peer in (other, first, second)] == ["admin", "ann", "ann"]
            watch = aiter(first.stream("kv", "watch", encode([{}])))
            waiting = asyncio.ensure_future(anext(watch))
            await asyncio.sleep(0.1)
            assert await done(url.node, change) == [(True,)]
            await eventually(lambda: first.going_away and second.going_away)
            await asyncio.sleep(1.1)
            assert first.closed
            assert second.closed
            with pytest.raises(haptera.HapteraError):
                await waiting
            assert await whoami(other) == "admin"
        told = [record for record in caplog.records if record.getMessage() == "sessions_ended"]
        assert [(vars(each)["user"], vars(each)["connections"], vars(each)["reason"]) for each in told] == [
            ("ann", 2, reason)
        ]


@virtual_clock
async def test_a_client_learns_at_its_next_call_that_its_password_is_not_good_any_more() -> None:
    async with served() as url:
        assert await done(url.node, AddUser("ann", stored(PASSWORD), ["admin"])) == [(True,)]
        async with haptera.connect(url, user="ann", password=PASSWORD) as db:
            await db.set("k", b"v")
            assert await done(url.node, SetVerifier("ann", stored(OTHER))) == [(True,)]
            await asyncio.sleep(0.1)
            with pytest.raises(AuthenticationFailed):
                await db.get("k")
        async with haptera.connect(url, user="ann", password=OTHER) as db:
            entry = await db.get("k")
            assert entry is not None
            assert entry.value == b"v"


@virtual_clock
async def test_a_user_that_gives_itself_another_password_has_the_answer_first() -> None:
    async with served() as url:
        assert await done(url.node, AddUser("ann", stored(PASSWORD), [])) == [(True,)]
        async with dial(url, user="ann", password=PASSWORD) as peer:
            made = stored(OTHER)
            argument = ["ann", [made.salt, made.iterations, made.stored_key, made.server_key]]
            assert decode(await peer.call("admin", "set_verifier", encode(argument))) == [True]
            await eventually(lambda: peer.closed)


@virtual_clock
async def test_a_token_ends_with_its_connections_at_its_time_or_when_it_is_revoked() -> None:
    async with served() as url:
        now_ms = url.node.read_time_ms()
        for name, end in (("token:short", now_ms + 5000), ("token:long", now_ms + 90_000), ("token:ever", None)):
            assert await done(url.node, AddToken(name, stored(PASSWORD), [], end)) == [(True,)]
        names = ("token:long", "token:short", "token:ever")
        peers = {name: await dial(url, user=name, password=PASSWORD) for name in names}
        for name, peer in peers.items():
            assert await whoami(peer) == name
        await asyncio.sleep(4)
        assert not any(peer.going_away for peer in peers.values())
        await asyncio.sleep(2)
        assert [name for name in names if peers[name].going_away] == ["token:short"]
        await asyncio.sleep(80)
        assert not peers["token:long"].going_away
        await asyncio.sleep(5)
        assert [name for name in names if peers[name].going_away] == ["token:long", "token:short"]
        assert await done(url.node, RemoveToken("token:ever")) == [(True,)]
        await eventually(lambda: peers["token:ever"].closed)
        for peer in peers.values():
            await peer.aclose()


async def test_the_user_of_the_local_socket_stays_whatever_changes() -> None:
    async with served() as url, dial(url.server.urls[-1]) as peer:
        assert await whoami(peer) == "local"
        assert await done(url.node, AddUser("ann", stored(PASSWORD), [])) == [(True,)]
        for _ in range(3):
            assert await whoami(peer) == "local"


@virtual_clock
async def test_connections_go_on_where_only_roles_change() -> None:
    async with served() as url:
        assert await done(url.node, AddUser("ann", stored(PASSWORD), [])) == [(True,)]
        async with dial(url, user="ann", password=PASSWORD) as peer:
            assert await whoami(peer) == "ann"
            assert await done(url.node, AddRole("app", []), AssignRole("ann", "app")) == [(True,), (True,)]
            await asyncio.sleep(2)
            assert await whoami(peer) == "ann"


async def test_a_process_that_stands_for_a_user_goes_with_the_user_and_not_with_a_password(short_path: Path) -> None:
    file = short_path / "users.toml"
    file.write_text(f'[uids]\n{os.geteuid()} = "ann"\n')
    async with node(
        listen=f"haptera+unix://{short_path}/s", no_auth=False, admin_password=PASSWORD, external_users_file=str(file)
    ) as url:
        assert await done(url.node, AddUser("ann", stored(PASSWORD), [])) == [(True,)]
        async with dial(url) as peer:
            assert await whoami(peer) == "ann"
            assert await done(url.node, SetVerifier("ann", stored(OTHER))) == [(True,)]
            assert await whoami(peer) == "ann"
            assert await done(url.node, SetDisabled("ann", True)) == [(True,)]
            await eventually(lambda: peer.closed)


async def test_a_process_that_stands_for_nobody_any_more_loses_its_connection(
    short_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    file = short_path / "users.toml"
    file.write_text(f'[uids]\n{os.geteuid()} = "ann"\n')
    async with node(
        listen=f"haptera+unix://{short_path}/s", no_auth=False, admin_password=PASSWORD, external_users_file=str(file)
    ) as url:
        assert await done(url.node, AddUser("ann", stored(PASSWORD), []), AddUser("bob", None, [])) == [(True,)] * 2
        async with dial(url) as peer, dial(url, user="ann", password=PASSWORD) as other:
            assert [await whoami(peer), await whoami(other)] == ["ann", "ann"]
            file.write_text("[uids\n")
            assert not await url.server.reload_files()
            assert await whoami(peer) == "ann"
            file.write_text(f'[uids]\n{os.geteuid()} = "ann"\n12345 = "bob"\n')
            assert await url.server.reload_files()
            assert await whoami(peer) == "ann"
            file.write_text(f'[uids]\n{os.geteuid()} = "bob"\n')
            assert await url.server.reload_files()
            await eventually(lambda: peer.closed)
            assert await whoami(other) == "ann"
        async with dial(url) as peer:
            assert await whoami(peer) == "bob"
        (record,) = [record for record in caplog.records if record.getMessage() == "sessions_ended"]
        assert (record.__dict__["user"], record.__dict__["connections"]) == ("ann", 1)
        assert record.__dict__["reason"] == "its certificate or process does not stand for it any more"
