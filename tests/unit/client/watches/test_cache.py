"""The age that a copy says, on virtual time: over late news, a machine that slept, and another store behind the URL."""

from __future__ import annotations

import asyncio
import random
import time
from bisect import bisect_left
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

import haptera
from haptera.client.database import Database
from haptera.client.watches import cache as cache_module
from haptera.client.watches import freshness
from haptera.client.watches.cache import STALENESS_MIN_S
from haptera.errors import ConnectionLost, ServerError, failure
from haptera.peer.backoff import Backoff
from haptera.testing import MemoryFileSystem, node, proxy, virtual_clock
from tests.support.places import URL, Place
from tests.unit.client.doubles import Dialler, FakePeer, FakeStream, Sent, channel

if TYPE_CHECKING:
    from collections.abc import Callable

    from haptera import Cache, Event
    from haptera.testing import Proxy


class BootClock:
    """Boot time beside the virtual time of the loop: it goes on while the machine sleeps."""

    def __init__(self) -> None:
        self.slept_s = 0.0

    def __call__(self) -> int:
        return round((asyncio.get_running_loop().time() + self.slept_s) * 1e9)


@pytest.fixture
def boot(monkeypatch: pytest.MonkeyPatch) -> BootClock:
    clock = BootClock()
    for module in (cache_module, freshness):
        monkeypatch.setattr(module, "boot_time_ns", clock)
    return clock


def age(cache: Cache) -> float:
    return time.time() - cache.fresh_at


def copied(cache: Cache) -> dict[str, bytes]:
    return {key: cache._entries[key].value for key in cache}


def stale(cache: Cache) -> bool:
    try:
        cache.get("a")
    except ConnectionLost:
        return True
    return False


async def oldest(cache: Cache, seconds: float) -> float:
    """The greatest age in a time."""
    found = 0.0
    for _ in range(round(seconds / 0.01)):
        found = max(found, age(cache))
        await asyncio.sleep(0.01)
    return found


@virtual_clock
async def test_a_copy_of_a_quiet_store_is_as_old_as_half_a_second_and_a_round_trip(boot: BootClock) -> None:
    async with node(storage="memory", listen=URL), proxy(URL) as link, haptera.connect(link.url) as db:
        link.delay(0.05)
        async with db.cached(prefix="") as cache:
            assert await oldest(cache, 20) == pytest.approx(0.6, abs=0.02)


@virtual_clock
async def test_a_copy_is_young_enough_while_other_keys_change(boot: BootClock) -> None:
    """The worst case: the prefix changes once in two signs of the node, right behind the first."""
    async with (
        node(storage="memory", listen=URL),
        haptera.connect(URL) as db,
        db.cached(prefix="a", max_staleness=STALENESS_MIN_S) as cache,
    ):

        async def write() -> None:
            while True:
                for number in range(40):
                    await db.set("b" if number else "a", "")
                    await asyncio.sleep(0.05)

        writing = asyncio.ensure_future(write())
        assert 1.4 < await oldest(cache, 20) < 2.6
        writing.cancel()


@virtual_clock
async def test_trap_news_that_come_late_make_a_copy_fresh(boot: BootClock) -> None:
    """A link that is frozen, or slow: a sign of the node comes each second, and each is ten seconds old."""
    async with (
        node(storage="memory", listen=URL),
        proxy(URL) as link,
        haptera.connect(URL) as writer,
        haptera.connect(link.url, timeout=60) as db,
        db.cached(prefix="", max_staleness=3) as cache,
    ):
        assert not stale(cache)
        link.delay(10.0, "to_dialer")
        await writer.set("a", "")
        await asyncio.sleep(4)
        for _ in range(300):
            assert stale(cache)
            assert age(cache) > 3.99
            await asyncio.sleep(0.1)
        assert 10 < age(cache) < 30
        assert "a" in cache
        link.delay(0.0)
        await asyncio.sleep(11)
        assert not stale(cache)


@virtual_clock
async def test_a_copy_is_old_when_its_machine_has_slept_and_is_asked_for_anew(boot: BootClock) -> None:
    async with (
        node(storage="memory", listen=URL),
        haptera.connect(URL) as db,
        db.cached(prefix="", max_staleness=3) as cache,
    ):
        await asyncio.sleep(5)
        assert not stale(cache)
        boot.slept_s = 3600
        assert stale(cache)
        assert age(cache) > 3600
        await asyncio.sleep(1)
        assert not stale(cache)


class Writer:
    """Writes one key after the other, and knows the state of each revision and when it was answered."""

    def __init__(self, boot: BootClock, chance: random.Random) -> None:
        self.states: list[dict[str, bytes]] = [{}]
        self.answered_ns: list[int] = []
        self._boot = boot
        self._chance = chance

    async def write(self) -> None:
        async with haptera.connect(URL) as db:
            while True:
                key, value = f"{self._chance.choice('ab')}{self._chance.randrange(5)}", b"%d" % len(self.states)
                assert await db.set(key, value) == len(self.states)
                self.answered_ns.append(self._boot())
                self.states.append({**self.states[-1], key: value})
                await asyncio.sleep(self._chance.choice([0.0, 0.05, 0.3]))

    def check(self, cache: Cache) -> None:
        """The copy is the store of its revision, and has all that was answered before the moment that it names."""
        if cache.revision is None:
            return
        state = self.states[cache.revision] if cache.revision < len(self.states) else None
        if state is not None:
            assert copied(cache) == {key: value for key, value in state.items() if key.startswith("a")}
        assert cache.revision >= bisect_left(self.answered_ns, cache._freshness.fresh_ns)


async def trouble(link: Proxy, boot: BootClock, chance: random.Random) -> None:
    for _ in range(25):
        match chance.randrange(6):
            case 0:
                link.delay(chance.uniform(0, 4), chance.choice(["to_acceptor", "to_dialer"]))
            case 1:
                link.pause(chance.choice(["to_acceptor", "to_dialer"]))
            case 2:
                link.sever()
            case 3:
                boot.slept_s += chance.uniform(0, 20)
            case _:
                link.delay(0.0)
                link.resume()
        await asyncio.sleep(chance.uniform(0, 3))
    link.delay(0.0)
    link.resume()


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 33))])
@virtual_clock
async def test_a_copy_has_all_that_was_answered_before_the_moment_up_to_which_it_is_fresh(
    boot: BootClock, seed: int
) -> None:
    """The validator: whatever its link and its machine do, a copy is no older than it says."""
    chance = random.Random(seed)
    writer = Writer(boot, chance)
    async with node(storage="memory", listen=URL), proxy(URL) as link:
        writing = asyncio.ensure_future(writer.write())
        async with haptera.connect(link.url, timeout=8) as db, db.cached(prefix="a") as cache:
            troubling = asyncio.ensure_future(trouble(link, boot, chance))
            young = 0
            while not troubling.done():
                writer.check(cache)
                young += age(cache) < 3
                await asyncio.sleep(chance.uniform(0, 0.05))
            assert young > 50
            await asyncio.sleep(20)
            assert age(cache) < 3
            writer.check(cache)
        writing.cancel()


@virtual_clock
async def test_a_copy_is_right_again_where_another_store_stands(boot: BootClock) -> None:
    """A restored store may have another value with the same version, and be at a lower revision."""
    async with Place() as place, haptera.connect(URL) as db:
        await place.start()
        for key, value in (("same", "1"), ("differs", "1"), ("goes", "1"), ("last", "1")):
            await db.set(key, value)
        async with db.cached(prefix="", max_staleness=3) as cache:
            told: list[Event] = []
            cache.on_change(told.append)
            await place.start(MemoryFileSystem())
            for key, value in (("same", "1"), ("differs", "2"), ("comes", "1")):
                await db.set(key, value)
            await asyncio.sleep(5)
            assert copied(cache) == {"same": b"1", "differs": b"2", "comes": b"1"}
            assert sorted((event.kind, event.key, event.text) for event in told) == [
                ("delete", "goes", ""),
                ("delete", "last", ""),
                ("put", "comes", "1"),
                ("put", "differs", "2"),
            ]
            assert (stale(cache), cache.revision, cache.error) == (False, 3, None)


@virtual_clock
async def test_a_copy_that_took_long_to_read_is_young_enough_when_it_is_entered(boot: BootClock) -> None:
    async with node(storage="memory", listen=URL), proxy(URL) as link, haptera.connect(URL) as writer:
        await writer.set_many({f"{number}": bytes(10_000) for number in range(100)})
        async with haptera.connect(link.url, timeout=60) as db:
            link.limit(100_000)
            async with db.cached(prefix="", max_staleness=3) as cache:
                assert asyncio.get_running_loop().time() > 10
                assert (len(cache), stale(cache)) == (100, False)


@pytest.mark.parametrize("end", ["closed", "refused", "cancelled"])
@virtual_clock
async def test_nothing_of_a_copy_goes_on_behind_its_end(boot: BootClock, end: str) -> None:
    before = asyncio.all_tasks()
    async with Place() as place:
        if end == "closed":
            await place.start()
        async with haptera.connect(URL, wait=end == "cancelled") as db:
            entering = asyncio.ensure_future(db.cached(prefix="").__aenter__())
            await asyncio.sleep(0.2)
            if end == "closed":
                await (await entering).__aexit__(None, None, None)
            else:
                entering.cancel()
                with suppress(asyncio.CancelledError, ConnectionLost):
                    await entering
    assert asyncio.all_tasks() == before


def endings(*streams: list[Any]) -> FakePeer:
    """A server whose watches end so, one after the other."""

    def answer(sent: Sent) -> None:
        sent.answer([])

    peer = FakePeer(answer)
    peer.streams = [FakeStream(list(pages), None) for pages in streams]
    return peer


@virtual_clock
async def test_the_waits_between_watches_begin_anew_behind_one_that_was_whole(
    boot: BootClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[int] = []

    async def wait(_: Backoff, attempt: int, within: float) -> None:
        attempts.append(attempt)

    monkeypatch.setattr(Backoff, "wait", wait)
    compacted: Callable[[], Exception] = failure(4009).exception
    whole, lost = [[3, []], compacted()], [compacted()]
    peer = endings(whole, lost, lost, whole, whole, lost, [[3, []], [4, []], ...])
    async with Database(channel(Dialler(peer)), "haptera://a:1", 5.0) as db, db.cached(prefix="") as cache:
        while cache.revision != 4:
            await asyncio.sleep(0.1)
    assert attempts == [1, 2, 3, 1, 1, 2]


@pytest.mark.parametrize(
    ("code", "goes_on"), [(3005, True), (5001, True), (4009, True), (2004, False), (3002, False), (3003, False)]
)
@virtual_clock
async def test_a_copy_that_was_whole_goes_on_after_every_refusal_that_may_pass(
    boot: BootClock, code: int, goes_on: bool
) -> None:
    refused = [failure(code, outcome="not_applied").exception()]
    peer = endings([[3, []], failure(4009).exception()], refused, [[3, []], [4, []], ...])
    async with Database(channel(Dialler(peer)), "haptera://a:1", 5.0) as db, db.cached(prefix="") as cache:
        await asyncio.sleep(10)
        assert (cache.ended, cache.revision) == (not goes_on, 4 if goes_on else None)
        assert getattr(cache.error, "code", None) == (None if goes_on else code)


@pytest.mark.parametrize("code", [2004, 3005, 5001])
@virtual_clock
async def test_a_copy_that_is_refused_on_entering_says_why(boot: BootClock, code: int) -> None:
    peer = endings([failure(code, outcome="not_applied").exception()])
    async with Database(channel(Dialler(peer)), "haptera://a:1", 5.0) as db:
        cache = db.cached(prefix="")
        with pytest.raises(ServerError) as refused:
            await cache.__aenter__()
        assert (refused.value.code, cache.ended, cache.error) == (code, True, refused.value)
        with pytest.raises(ValueError, match="entered once"):
            await cache.__aenter__()


@pytest.mark.parametrize("end", ["drain", "aclose"])
@virtual_clock
async def test_trap_a_copy_of_a_closed_database_dials_for_ever(boot: BootClock, end: str) -> None:
    async with node(storage="memory", listen=URL), haptera.connect(URL) as db, db.cached(prefix="") as cache:
        reading = asyncio.ensure_future(anext(cache.changes()))
        await asyncio.sleep(0.1)
        await (db.drain() if end == "drain" else db.aclose())
        with pytest.raises(ConnectionLost, match="is closed"):
            await reading
        assert (cache.ended, "is closed" in str(cache.error)) == (True, True)


@virtual_clock
async def test_a_copy_ends_for_its_readers_although_its_closing_is_cancelled(boot: BootClock) -> None:
    async with node(storage="memory", listen=URL), haptera.connect(URL) as db:
        cache = await db.cached(prefix="").__aenter__()
        reading = asyncio.ensure_future(anext(cache.changes()))
        await asyncio.sleep(0.1)
        closing = asyncio.ensure_future(cache.__aexit__(None, None, None))
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(ConnectionLost, match="the local copy is closed"):
            await reading
        assert cache.ended


@virtual_clock
async def test_a_defect_ends_a_copy_and_is_logged(boot: BootClock, caplog: pytest.LogCaptureFixture) -> None:
    async with node(storage="memory", listen=URL), haptera.connect(URL) as db, db.cached(prefix="") as cache:

        async def fail() -> tuple[bytes, int]:
            raise ZeroDivisionError

        other = type(cache)(cache._begin, fail, lambda: False, None)
        with suppress(ZeroDivisionError):
            async with other:
                await asyncio.sleep(1)
        assert (other.ended, type(other.error)) == (True, ZeroDivisionError)
        assert [record.message for record in caplog.records if "cache" in record.name] == ["cache_failed"]
