"""A database with a credential: its calls, its refusals, and how often it tries (spec/protocol.md, section 5.1)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import pytest

from haptera import Database, Request, Service, connect, listen, method
from haptera.errors import (
    AuthenticationFailed,
    AuthenticationLocked,
    AuthenticationRequired,
    UnsupportedMechanism,
    failure,
)
from haptera.peer import SCRAM
from haptera.testing import virtual_clock
from tests.unit.peer.users import NAME, PASSWORD, Users

if TYPE_CHECKING:
    from haptera import Server


class Kv(Service):
    """As much of a store as a get needs."""

    name = "kv"

    @method
    async def get(self, request: Request) -> bytes:
        assert request.peer.identity is not None
        return msgspec.msgpack.encode([request.peer.identity.user.encode(), 1])


async def user_of(db: Database) -> str:
    entry = await db.get("k")
    assert entry is not None
    return entry.text


def url_of(server: Server, credential: str = "") -> str:
    return server.url.replace("//", f"//{credential}@") if credential else server.url


@virtual_clock
async def test_the_calls_of_a_user_are_made_in_its_name() -> None:
    users = Users()
    async with await listen("haptera://127.0.0.1:0", services=[Kv()], authenticator=users) as server:
        async with connect(server.url, user=NAME, password=PASSWORD) as db:
            assert await user_of(db) == NAME
            assert await user_of(db) == NAME
        async with connect(url_of(server, "app:correct%20horse%20battery")) as db:
            assert await user_of(db) == NAME
    assert users.ends == [(NAME, SCRAM, None)] * 2


@virtual_clock
async def test_a_wrong_password_fails_a_call_at_once_and_is_tried_once_a_call() -> None:
    """Trap: a client that tries a wrong password until its user is locked out."""
    users = Users()
    async with (
        await listen("haptera://127.0.0.1:0", services=[Kv()], authenticator=users) as server,
        connect(server.url, user=NAME, password="wrong", timeout=60.0) as db,  # of a test
    ):
        for attempts in (1, 2):
            with pytest.raises(AuthenticationFailed) as caught:
                await db.get("k")
            assert caught.value.outcome == "not_applied"
            assert len(users.ends) == attempts
            await asyncio.sleep(1)


@virtual_clock
async def test_a_user_that_is_locked_is_told_when_to_try_again() -> None:
    users = Users()
    users.refusal = failure(2003, {"retry_after_ms": 5000}, outcome="not_applied")
    async with (
        await listen("haptera://127.0.0.1:0", services=[Kv()], authenticator=users) as server,
        connect(server.url, user=NAME, password=PASSWORD) as db,
    ):
        with pytest.raises(AuthenticationLocked) as caught:
            await db.get("k")
        assert caught.value.details == {"retry_after_ms": 5000}
        users.refusal = None
        await asyncio.sleep(1)
        assert await user_of(db) == NAME


@virtual_clock
async def test_a_store_that_asks_for_a_user_refuses_a_client_without_one_at_once() -> None:
    async with (
        await listen("haptera://127.0.0.1:0", services=[Kv()], authenticator=Users()) as server,
        connect(server.url, timeout=None) as db,
    ):
        with pytest.raises(AuthenticationRequired):
            await db.get("k")


@virtual_clock
async def test_a_credential_is_not_given_to_a_store_that_asks_for_none() -> None:
    async with (
        await listen("haptera://127.0.0.1:0", services=[Kv()]) as server,
        connect(server.url, user=NAME, password=PASSWORD, timeout=None) as db,
    ):
        with pytest.raises(UnsupportedMechanism):
            await db.get("k")
