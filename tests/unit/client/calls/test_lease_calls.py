"""The calls about leases: over a connection and embedded, and against a server whose answers cannot be right."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from haptera.client import connect, open_embedded
from haptera.client.calls import lease_calls
from haptera.client.database import Database
from haptera.errors import Fenced, LeaseNotFound, RemoteProtocolError
from haptera.state import limits
from haptera.testing import MemoryFileSystem, node, virtual_clock
from tests.unit.client.doubles import Dialler, FakePeer, Sent, channel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

LEASES_1 = frozenset({"idempotency", "pipelining", "kv_leases"})

each_store = pytest.mark.parametrize("kind", ["served", "embedded"])


@asynccontextmanager
async def store(kind: str, path: Path) -> AsyncIterator[Database]:
    if kind == "embedded":
        async with open_embedded(path / "data") as db:
            yield db
    else:
        async with node(storage=MemoryFileSystem()) as url, connect(url) as db:
            yield db


@each_store
async def test_a_lease_is_granted_renewed_listed_and_revoked(kind: str, tmp_path: Path) -> None:
    async with store(kind, tmp_path) as db:
        lease = await db.grant_lease(10)
        other = await db.grant_lease(1.5)
        await db.set("a", b"1", lease=lease)
        assert await db.renew_leases([other, 7, lease]) == [1.5, None, 10.0]
        found = [each async for each in db.leases()]
        assert [(each.id, each.ttl, each.keys) for each in found] == [(lease, 10.0, 1), (other, 1.5, 0)]
        assert all(0 < each.remaining <= each.ttl for each in found)
        assert await db.revoke_lease(lease) == 1
        assert await db.get("a") is None
        assert await db.renew_leases([]) == []
        for call in (db.revoke_lease(lease), db.set("a", b"", lease=lease)):
            with pytest.raises(LeaseNotFound) as missing:
                await call
            assert (missing.value.code, missing.value.details) == (4010, {"lease": lease})


@each_store
async def test_a_transact_has_a_fence_and_compares_leases(kind: str, tmp_path: Path) -> None:
    async with store(kind, tmp_path) as db:
        lease = await db.grant_lease(10)
        token = await db.set("a", b"1", lease=lease)
        held = await db.transact(compare=[("a", "lease", "=", lease)], then=[("set", ["b", b"2"])], fence=token)
        assert held.succeeded
        await db.revoke_lease(lease)
        with pytest.raises(Fenced) as fenced:
            await db.transact(then=[("set", ["b", b"3"])], fence=token)
        assert (fenced.value.code, fenced.value.outcome) == (4011, "not_applied")
        entry = await db.get("b")
        assert entry is not None
        assert entry.value == b"2"


@each_store
async def test_the_list_goes_on_from_page_to_page(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LEASES_LISTED_MAX", 3)
    async with store(kind, tmp_path) as db:
        ids = [await db.grant_lease(10) for _ in range(7)]
        assert [each.id async for each in db.leases()] == ids
        assert [each.id async for each in db.leases(after=ids[1], limit=4)] == ids[2:6]
        assert [each.id async for each in db.leases(limit=0)] == []


@each_store
async def test_a_call_renews_so_many_leases_at_most(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_calls, "LEASES_RENEWED_MAX", 2)
    async with store(kind, tmp_path) as db:
        assert await db.renew_leases([1, 2]) == [None, None]
        with pytest.raises(ValueError, match="at most 2 leases, not 3"):
            await db.renew_leases([1, 2, 3])


def answering(answer: Callable[[Sent], None]) -> tuple[Database, FakePeer]:
    """A database whose server gives these answers."""
    peer = FakePeer(answer, capabilities=LEASES_1)
    return Database(channel(Dialler(peer)), "haptera://a:1", 5.0), peer


@virtual_clock
@pytest.mark.parametrize("times", [[], [10_000], [10_000, None, 10_000]])
async def test_an_answer_with_another_number_of_times_is_no_answer(times: list[Any]) -> None:
    """Else a holder would take the time of one lease for that of another."""
    db, _ = answering(lambda sent: sent.answer(times))
    async with db:
        with pytest.raises(RemoteProtocolError, match=f"{len(times)} times for 2 leases"):
            await db.renew_leases([1, 2])


@virtual_clock
async def test_an_empty_page_is_the_last_one_whatever_it_says() -> None:
    """A server that says "there are more" for ever would else be asked for ever."""

    def says_more(sent: Sent) -> None:
        assert len(peer.sent) <= 2
        sent.answer([[8, 1000, 900, 0]] if len(peer.sent) == 1 else [], True)

    db, peer = answering(says_more)
    async with db:
        assert [each.id async for each in db.leases()] == [8]
        assert [sent.argument[0]["after"] for sent in peer.sent] == [0, 8]
