"""Failed authentication at a served node: guessing becomes slow, and no guesser keeps another one out."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from haptera.errors import AuthenticationFailed, AuthenticationLocked, AuthenticationRequired, HapteraError
from haptera.peer import dial
from haptera.security import ScramDialer, hello_binding, throttle
from haptera.testing import node
from tests.support.planted import PASSWORD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from haptera.testing import NodeUrl

pytestmark = pytest.mark.usefixtures("quick_passwords")

ANY_PORT = "haptera://127.0.0.1:0"
encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode


@asynccontextmanager
async def served(*listen: str, **options: Any) -> AsyncIterator[NodeUrl]:
    async with node(listen=listen or ANY_PORT, no_auth=False, admin_password=PASSWORD, **options) as url:
        yield url


async def came_in(url: str, password: str = PASSWORD, user: str = "admin") -> str:
    """The user of a connection with a password."""
    async with dial(url, user=user, password=password) as peer:
        return str(decode(await peer.call("session", "whoami", encode([])))["user"])


async def fail(url: str, times: int, user: str = "admin") -> None:
    for _ in range(times):
        with pytest.raises(AuthenticationFailed):
            await came_in(url, "a wrong password", user)


async def locked(url: str, user: str = "admin") -> int:
    """The wait, in milliseconds, of the right password."""
    with pytest.raises(AuthenticationLocked) as caught:
        await came_in(url, user=user)
    return int(caught.value.details["retry_after_ms"])


async def test_a_user_waits_after_too_many_failures_at_whatever_listener_of_the_node() -> None:
    async with served(ANY_PORT, ANY_PORT) as url:
        first, second, *_ = url.server.urls
        await fail(first, throttle.FREE_FAILURES)
        await fail(second, 1)
        assert 0 < await locked(first) <= 1000
        assert 0 < await locked(second) <= 1000
        values = url.node.metrics.values()
        assert (values["logins_total"], values["logins_failed_total"]) == (0, throttle.FREE_FAILURES + 3)


async def test_no_guesser_locks_the_administrator_out_from_elsewhere(short_path: Path) -> None:
    """Trap: a lock-out that anyone can trigger for the administrator from outside."""
    async with served(ANY_PORT, f"haptera+unix://{short_path}/s") as url:
        outside, inside, local = url.server.urls
        await fail(outside, throttle.FREE_FAILURES + 1)
        assert await locked(outside) > 0
        assert await came_in(inside) == "admin"
        async with dial(local) as peer:
            assert decode(await peer.call("session", "whoami", encode([])))["user"] == "local"
        assert await locked(outside) > 0, "success elsewhere forgives nothing here"


async def test_the_right_password_forgives_the_failures_of_before() -> None:
    async with served() as url:
        for _ in range(3):
            await fail(url, throttle.FREE_FAILURES)
            assert await came_in(url) == "admin"


async def test_another_user_at_the_same_address_comes_in() -> None:
    async with served(signing_user="admin") as url:
        await fail(url, throttle.FREE_FAILURES + 1, user="nobody")
        assert await locked(url, user="nobody") > 0
        assert await came_in(url) == "admin"


async def test_an_exchange_that_is_broken_off_counts_as_failed() -> None:
    async with served() as url:
        for _ in range(throttle.FREE_FAILURES + 1):
            exchange = ScramDialer("admin", hello_binding(b"", b"", None), "n" * 20)
            async with dial(url) as peer:
                await peer.call("session", "authenticate", encode(["SCRAM-SHA-256", exchange.first()]))
        assert await locked(url) > 0


async def test_many_names_from_one_address_come_to_an_end_and_malformed_attempts_count_too() -> None:
    async with served() as url:
        for _ in range(throttle.ADDRESS_FAILURES // 3 + 1):
            async with dial(url) as peer:
                for _ in range(3):
                    with pytest.raises(HapteraError):
                        await peer.call("session", "authenticate", b"\x90")
        assert await locked(url, user=f"user-{os.getpid()}") > 0


async def test_requests_behind_an_attempt_that_is_refused_are_not_served() -> None:
    async with served() as url:
        await fail(url, throttle.FREE_FAILURES + 1)
        async with dial(url) as peer:
            first = ScramDialer("admin", hello_binding(b"", b"", None), "n" * 20).first()
            with pytest.raises(AuthenticationLocked):
                await peer.call("session", "authenticate", encode(["SCRAM-SHA-256", first]))
            with pytest.raises(AuthenticationRequired):
                await peer.call("kv", "get", encode(["k"]))
