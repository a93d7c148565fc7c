"""Clients of a store that has lost changes with the power, in durability "os": none of them takes the rest for the same
history.
"""

from __future__ import annotations

import asyncio

import pytest

import haptera
from haptera.errors import Fenced, RevisionCompacted, VersionMismatch
from haptera.state.gaps import REVISIONS_PER_MS
from haptera.testing import virtual_clock
from haptera.testing.nodes import EPOCH_MS
from tests.support.places import URL, Place

#: Versions behind a gap that was left in the time of these tests.
BEHIND = EPOCH_MS * REVISIONS_PER_MS


@virtual_clock
async def test_the_versions_of_lost_changes_are_not_given_again() -> None:
    async with Place() as place, haptera.connect(URL) as db:
        await place.start(durability="os")
        lost = [await db.set("a", "mine") for _ in range(5)]
        await place.lose_power(durability="os")
        async with haptera.connect(URL) as other:
            versions = [await other.set("a", "theirs") for _ in range(5)]
        assert lost == [1, 2, 3, 4, 5]
        assert versions[0] > BEHIND
        assert [version - versions[0] for version in versions] == [0, 1, 2, 3, 4]
        for version in lost:
            with pytest.raises(VersionMismatch):
                await db.set("a", "mine again", if_version=version)
        entry = await db.get("a")
        assert entry is not None
        assert entry.value == b"theirs"


@virtual_clock
async def test_a_watch_that_was_told_of_lost_changes_ends() -> None:
    async with Place() as place, haptera.connect(URL) as db:
        await place.start(durability="os")
        async with db.watch() as events:
            await db.set("a", "1")
            await db.set("b", "2")
            assert [(await anext(events)).version for _ in range(2)] == [1, 2]
            waiting = asyncio.ensure_future(anext(events))
            await place.lose_power(durability="os")
            async with haptera.connect(URL) as other:
                await other.set("c", "3")
            with pytest.raises(RevisionCompacted, match="another server"):
                await waiting


@virtual_clock
async def test_a_revision_that_is_lost_is_none_to_go_on_from_or_to_read() -> None:
    """Also for a program that has kept the number alone, and not the server that it is from."""
    async with Place() as place, haptera.connect(URL) as db:
        await place.start(durability="os")
        lost = await db.set("a", "1")
        lost = await db.set("a", "2")
        await place.lose_power(durability="os")
        async with haptera.connect(URL) as again:
            first = await again.set("a", "3")
            with pytest.raises(RevisionCompacted):
                await again.get("a", at_revision=lost)
            with pytest.raises(RevisionCompacted):
                await again.watch(start_revision=lost + 1).__aenter__()
            async with again.watch(start_revision=1) as events:  # it has seen the empty store alone
                assert (await anext(events)).version == first
            entry = await again.get("a", at_revision=first)
            assert entry is not None
            assert entry.value == b"3"


@virtual_clock
async def test_a_lease_is_lost_with_the_power_and_its_token_with_it() -> None:
    """The lease itself is on the disk, and the key that belongs to it is not."""
    async with Place() as place, haptera.connect(URL) as db:
        first = await place.start(durability="os")
        async with db.lease(30) as lease:
            await first.node.snapshots.request()
            token = await db.set("lock", "me", lease=lease)
            node = await place.lose_power(durability="os")
            assert node.node.leases.count == 1
            await asyncio.wait_for(lease.lost, 60)
            with pytest.raises(Fenced):
                await db.set("guarded", "mine", fence=token)


@virtual_clock
async def test_a_copy_is_right_again_where_the_power_has_taken_changes() -> None:
    async with Place() as place, haptera.connect(URL) as db:
        await place.start(durability="os")
        await db.set("kept", "1")
        async with db.cached(prefix="") as copy:
            await db.set("lost", "2")
            async with asyncio.timeout(60):
                while copy.get("lost") is None:
                    await asyncio.sleep(0.1)
                await place.lose_power(durability="os")
                while copy.get("lost") is not None:
                    await asyncio.sleep(0.1)
