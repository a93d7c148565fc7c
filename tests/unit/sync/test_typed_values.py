"""Values with a type, for threads: the same calls, scans, watches, copies and services."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

import haptera
import haptera.sync
from haptera.errors import InvalidArgument, UnexpectedValue
from tests.unit.peer.test_typed_methods import Packed

if TYPE_CHECKING:
    from pathlib import Path


class Config(msgspec.Struct):
    host: str


def test_a_store_has_values_with_a_type(tmp_path: Path) -> None:
    with haptera.sync.open(tmp_path / "data", durability="os") as db:
        configs = db.typed(Config)
        version = configs.set("a", Config("x"))
        entry = configs.get("a")
        assert entry is not None
        assert (entry.value, entry.version) == (Config("x"), version)
        db.set("bad", b"{}")
        with pytest.raises(UnexpectedValue) as found:
            configs.get("bad")
        assert found.value.key == "bad"
        assert [row.value for row in configs.scan(prefix="a")] == [Config("x")]
        with db.transaction() as tx:
            configs.within(tx).set("b", Config("y"))
        with configs.watch("b", start_revision=version) as events:
            assert next(events).value == Config("y")
        with configs.cached(prefix="b") as cache:
            copied = cache.get("b")
            assert copied is not None
            assert copied.value == Config("y")
            assert sorted(cache) == ["b", "bad"]


async def test_a_typed_service_is_called_by_a_thread() -> None:
    import asyncio

    async with haptera.listen("haptera://127.0.0.1:0", services=[Packed()]) as server:

        def call() -> list[int]:
            with haptera.sync.dial(server.url) as peer:
                with pytest.raises(InvalidArgument):
                    peer.call("packed", "turn", b"x")
                return peer.call("packed", "turn", [1, 2], codec="msgpack", returning=list[int])

        assert await asyncio.to_thread(call) == [2, 1]
