"""Results have the exact type that a type checker tells of them: `make lint` fails where it would tell another one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import assert_type

import msgspec

import haptera
from haptera import recipes, typed
from haptera.testing import node, node_in_thread


class Config(msgspec.Struct, frozen=True):
    size: int


class Sizes(haptera.Service, codec="json"):
    name = "sizes"

    @typed.method
    async def double(self, request: haptera.Request, argument: Config) -> Config:
        return Config(2 * argument.size)

    @typed.method
    async def below(self, request: haptera.Request, argument: int) -> AsyncIterator[int]:
        for number in range(argument):
            yield number


async def test_the_results_of_calls_of_pipelines_and_of_transactions_are_exact() -> None:
    async with node(storage="memory") as url, haptera.connect(url) as db:
        assert_type(await db.set("n", "1"), int)
        entry = assert_type(await db.get("n"), haptera.Entry | None)
        assert entry is not None
        assert assert_type(entry.version, int) == 1
        assert assert_type(await db.get_many(["n", "m"]), list[haptera.Entry | None])[1] is None
        async with db.pipeline() as pipeline:
            added = assert_type(pipeline.increment("n"), recipes.Pending[int])
            found = assert_type(pipeline.get("n"), recipes.Pending[haptera.Entry | None])
        assert assert_type(added.result(), int) == 2
        assert assert_type(found.result(), haptera.Entry | None) is not None
        result = assert_type(await db.transact(then=[("increment", ["n", 1])]), haptera.TransactResult)
        assert assert_type(result.succeeded, bool)
        assert_type(result.results, list[haptera.Entry | int | float | bool | None])
        async with db.transaction() as transaction:
            assert_type(transaction, haptera.Transaction)
            assert assert_type(await transaction.get("n"), haptera.Entry | None) is not None
        async with db.scan(prefix="n") as entries:
            assert_type(entries, haptera.Scan)
            assert [assert_type(each, haptera.Entry).key async for each in entries] == ["n"]


async def test_values_with_a_type_have_it_in_each_kind_of_result() -> None:
    async with node(storage="memory") as url, haptera.connect(url) as db:
        configs = assert_type(db.typed(Config), typed.TypedDatabase[Config])
        assert_type(await configs.set("a", Config(1)), int)
        entry = assert_type(await configs.get("a"), typed.TypedEntry[Config] | None)
        assert entry is not None
        assert assert_type(entry.value, Config) == Config(1)
        assert_type(await configs.get_many(["a"]), list[typed.TypedEntry[Config] | None])
        async with configs.scan(prefix="a") as entries:
            assert [assert_type(each, typed.TypedEntry[Config]).value.size async for each in entries] == [1]
        async with configs.watch(prefix="a", start_revision=1) as events:
            event = assert_type(await anext(events), typed.TypedEvent[Config])
        assert assert_type(event.value, Config | None) == Config(1)
        async with db.transaction() as transaction:
            within = assert_type(configs.within(transaction), typed.TypedTransaction[Config])
            assert assert_type(await within.get("a"), typed.TypedEntry[Config] | None) is not None


async def test_the_answers_of_services_with_types_are_exact() -> None:
    async with haptera.listen("haptera://127.0.0.1:0", services=[Sizes()]) as server:
        assert_type(server, haptera.Server)
        async with haptera.dial(server.url) as peer:
            assert_type(peer, haptera.Peer)
            answer = await peer.call("sizes", "double", Config(2), codec="json", returning=Config)
            assert assert_type(answer, Config) == Config(4)
            assert assert_type(await peer.call("sizes", "double", b'{"size":1}'), bytes) == b'{"size":2}'
            async with peer.stream("sizes", "below", 2, codec="json", returning=int) as items:
                assert [assert_type(each, int) async for each in items] == [0, 1]


def test_the_twins_for_threads_have_the_same_types() -> None:
    with node_in_thread(storage="memory") as url, haptera.sync.connect(url) as db:
        assert_type(db, haptera.sync.Database)
        assert_type(db.set("n", "1"), int)
        assert assert_type(db.get("n"), haptera.Entry | None) is not None
        with db.pipeline() as pipeline:
            added = assert_type(pipeline.increment("n"), recipes.Pending[int])
        assert assert_type(added.result(), int) == 2
        with db.transaction() as transaction:
            assert_type(transaction, haptera.sync.Transaction)
            assert_type(transaction.get("n"), haptera.Entry | None)
        configs = assert_type(db.typed(Config), haptera.sync.TypedDatabase[Config])
        configs.set("a", Config(1))
        entry = assert_type(configs.get("a"), typed.TypedEntry[Config] | None)
        assert entry is not None
        assert assert_type(entry.value, Config) == Config(1)
        with configs.scan(prefix="a") as entries:
            rows: Iterator[typed.TypedEntry[Config]] = iter(entries)
            assert [assert_type(each, typed.TypedEntry[Config]).key for each in rows] == ["a"]
