"""The quota of a user at a served node, from each side that a user can come from."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import haptera
from haptera.errors import HapteraError, QuotaExceeded
from haptera.peer import dial, link_of
from haptera.testing import MemoryFileSystem, node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from haptera.client import Database, UserQuota
    from haptera.testing import NodeUrl

pytestmark = pytest.mark.usefixtures("quick_passwords")

PASSWORD = "correct horse battery"
ANN: dict[str, Any] = {"user": "ann", "password": "another horse with a battery"}
ANY_PORT = "haptera://127.0.0.1:0"
ALL = ["read", "write", "delete", "scan", "watch", "lease"]
MIB = 1024 * 1024


@asynccontextmanager
async def served(fs: MemoryFileSystem, **options: Any) -> AsyncIterator[tuple[NodeUrl, Database]]:
    """A node, and a database of its administrator."""
    async with (
        node(storage=fs, listen=ANY_PORT, no_auth=False, admin_password=PASSWORD, **options) as url,
        haptera.connect(url, user="admin", password=PASSWORD) as root,
    ):
        yield url, root


async def with_users(root: Database, *names: str, **quota: Any) -> None:
    """Add users who may do everything to keys, with this quota."""
    await root.admin.add_role("app")
    await root.admin.add_grant("app", ALL, "*")
    for name in names:
        await root.admin.add_user(name, ANN["password"], roles=["app"])
        await root.admin.set_quota(name, **quota)


async def refusal(call: Any) -> dict[str, Any]:
    with pytest.raises(QuotaExceeded) as caught:
        await call
    assert (caught.value.code, caught.value.outcome) == (3013, "not_applied")
    return dict(caught.value.details)


async def test_no_connection_and_no_method_brings_a_user_above_its_quota_and_others_go_on() -> None:
    async with served(MemoryFileSystem()) as (url, root):
        await with_users(root, "ann", "bob", keys=3)
        await root.set("roots", b"1")
        async with (
            haptera.connect(url, **ANN) as first,
            haptera.connect(url, **ANN) as second,
            haptera.connect(url, **{**ANN, "user": "bob"}) as bob,
        ):
            await first.set_many({"a": b"", "b": b""})
            await second.set("c", b"")
            full = {"quota": "keys", "limit": 3, "used": 3}
            for db in (first, second):
                for call in (
                    db.set("d", b""),
                    db.set_many({"a": b"1", "d": b""}),
                    db.increment("d"),
                    db.rename("roots", "d"),
                    db.expire("roots", 60.0),
                    db.transact(then=[("delete", ["a"]), ("set", ["d", b""]), ("set", ["e", b""])]),
                    db.get_and_set("d", b""),
                ):
                    assert await refusal(call) == full
            with pytest.raises(QuotaExceeded):
                async with first.transaction() as tx:
                    tx.set("d", b"")
            writes = [first.set(f"new{number}", b"") for number in range(20)]
            writes += [second.set(f"new{number}", b"") for number in range(20)]
            assert {type(each) for each in await asyncio.gather(*writes, return_exceptions=True)} == {QuotaExceeded}
            assert await first.count() == 4
            await bob.set("bobs", b"")
            await root.set("d", b"")
            await first.set("c", b"another value")
            assert await second.delete("a")
            await second.set("e", b"")
            assert await refusal(first.set("f", b"")) == full


async def test_a_quota_and_all_that_counts_for_it_survive_a_crash_and_a_restart() -> None:
    fs = MemoryFileSystem()
    async with served(fs) as (url, root):
        await with_users(root, "ann", keys=2, leases=1, size=100)
        async with haptera.connect(url, **ANN) as ann:
            await ann.set_many({"a": b"1", "b": b"2"})
        told = await root.admin.quota("ann")
        crashed = fs.power_failure("drop")
    for each in (crashed, fs):
        await _find_the_quota_again(each, told)


async def _find_the_quota_again(fs: MemoryFileSystem, told: UserQuota | None) -> None:
    async with served(fs) as (url, root):
        assert await root.admin.quota("ann") == told
        assert told is not None
        assert (told.used.keys, told.used.size, told.limit.leases) == (2, 4, 1)
        async with haptera.connect(url, **ANN) as ann:
            assert await refusal(ann.set("c", b"")) == {"quota": "keys", "limit": 2, "used": 2}
            assert await ann.delete("a")
            await ann.set("c", b"")


async def test_a_token_uses_the_quota_of_its_user() -> None:
    async with served(MemoryFileSystem()) as (url, root):
        await with_users(root, "ann", keys=2)
        token = await root.admin.add_token("t", roles=["app"], quota_of="ann")
        async with (
            haptera.connect(url, user=token.name, password=token.secret) as program,
            haptera.connect(url, **ANN) as ann,
        ):
            await program.set("a", b"")
            await ann.set("b", b"")
            for db in (program, ann):
                assert await refusal(db.set("c", b"")) == {"quota": "keys", "limit": 2, "used": 2}
            await root.admin.set_quota("ann", keys=3)
            await program.set("c", b"")


async def test_watches_of_a_user_count_at_all_of_its_connections_until_they_end() -> None:
    async with served(MemoryFileSystem()) as (url, root), AsyncExitStack() as stack:
        await with_users(root, "ann", watches=2)
        first = await stack.enter_async_context(haptera.connect(url, **ANN))
        second = await stack.enter_async_context(haptera.connect(url, **ANN))
        quotas = url.node._machine.kv.quotas
        open_ = [asyncio.create_task(_first_event(db)) for db in (first, second)]
        while quotas.watches_of("ann") < 2:
            await asyncio.sleep(0.01)
        told = await root.admin.quota("ann")
        assert told is not None
        assert told.used.watches == 2
        assert await refusal(_first_event(first)) == {"quota": "watches", "limit": 2, "used": 2}
        for task in open_:
            task.cancel()
        await asyncio.gather(*open_, return_exceptions=True)
        while quotas.watches_of("ann"):
            await asyncio.sleep(0.01)
        again = asyncio.create_task(_first_event(second))
        while quotas.watches_of("ann") < 1:
            await asyncio.sleep(0.01)
        await root.set("k", b"v")
        assert (await again).key == "k"


async def _first_event(db: Database) -> Any:
    async for event in db.watch(prefix=""):
        return event
    raise AssertionError("the watch has ended")


async def test_the_connections_of_a_user_hold_a_quarter_of_the_memory_together() -> None:
    options = {"process_budget": 8 * MIB, "connection_budget": 2 * MIB, "max_message": MIB // 2}
    async with served(MemoryFileSystem(), **options) as (url, root), AsyncExitStack() as stack:
        await with_users(root, "ann", "bob")
        budgets = url.server._user_budgets
        assert budgets.limit == 2 * MIB
        peers = [await stack.enter_async_context(dial(url, **ANN)) for _ in range(3)]
        for peer in peers:
            await peer.call("session", "whoami", b"\x90")
        mine = budgets._budgets["ann"][0]
        assert budgets._budgets["ann"][1] == 3
        mine.used += mine.limit - 64 * 1024  # as much as unread answers would
        with pytest.raises(HapteraError) as caught:
            await peers[1].call("kv", "set", b"x" * 400 * 1024, timeout=2.0)
        assert caught.value.code == 3007
        async with haptera.connect(url, **{**ANN, "user": "bob"}) as bob:
            await bob.set("k", bytes(400 * 1024))
        mine.used -= mine.limit - 64 * 1024
        assert mine.used >= 0
    assert budgets._budgets == {}


async def test_answers_that_a_user_does_not_read_take_a_quarter_of_the_memory_and_leave_the_rest_to_others() -> None:
    options = {"process_budget": 8 * MIB, "connection_budget": 2 * MIB, "max_message": MIB // 2}
    async with served(MemoryFileSystem(), **options) as (url, root), AsyncExitStack() as stack:
        await with_users(root, "ann", "bob")
        await root.set("large", bytes(MIB // 4))
        budgets = url.server._user_budgets
        peers = [await stack.enter_async_context(dial(url, **ANN)) for _ in range(4)]
        calls: list[asyncio.Task[Any]] = []
        argument = msgspec.msgpack.encode(["large"])
        for peer in peers:
            await peer.call("session", "whoami", b"\x90")
            transport = link_of(peer).transport
            assert transport is not None
            transport.pause_reading()
            calls += [asyncio.create_task(peer.call("kv", "get", argument, timeout=None)) for _ in range(32)]
        assert budgets.limit == 2 * MIB
        while budgets.used("ann") < budgets.limit:
            await asyncio.sleep(0.01)
        for _ in range(20):
            await asyncio.sleep(0.01)
            assert budgets.used("ann") < budgets.limit + MIB, "each may begin one answer more"
        async with haptera.connect(url, **{**ANN, "user": "bob"}) as bob:
            for _ in range(8):
                found = await bob.get("large")
                assert found is not None
                assert len(found.value) == MIB // 4
        for peer in peers:
            transport = link_of(peer).transport
            assert transport is not None
            transport.resume_reading()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        codes = {each.code for each in answers if isinstance(each, HapteraError)}
        assert codes  # an answer has no room, or a connection that reads nothing makes some
        assert codes <= {3007, 3009}
        assert sum(isinstance(each, bytes) for each in answers) > 0
    assert budgets._budgets == {}
