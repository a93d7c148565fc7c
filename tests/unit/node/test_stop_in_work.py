"""A node that stops while it works on long requests: each is answered as what it is, and nothing is reported."""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.node.nodes import turn
from tests.unit.node.test_kv import served
from tests.unit.node.test_large import KEYS, filled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MANY = KEYS[:2000]
CAPABILITIES = frozenset({"pipelining", "idempotency", "kv_history", "kv_ttl"})


@pytest.fixture
async def reported(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """Fails a test after which the loop or the log has been told of a defect."""
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    yield
    gc.collect(1)  # the tasks that have just ended
    await turn()
    assert (told, [record for record in caplog.records if record.levelno >= logging.ERROR]) == ([], [])


@pytest.mark.usefixtures("reported")
@pytest.mark.parametrize("turns_before", [0, 2])
@pytest.mark.parametrize(
    ("method", "argument"),
    [
        ("get_many", [MANY]),
        ("get_many", [MANY, {"at_revision": 1}]),
        ("get", ["k00001", {"at_revision": 1}]),
        ("history", ["k00001"]),
        ("count", [{"glob": "*7*"}]),
        ("count", [{"at_revision": 1}]),
        ("scan", [{}]),
        ("scan", [{"glob": "k" + "?" * 4000}]),
        ("set_many", [[[key, b""] for key in KEYS]]),
        ("delete_many", [KEYS * 3]),
    ],
)
async def test_the_end_of_a_node_is_told_to_long_requests_in_work(
    method: str, argument: list[Any], turns_before: int
) -> None:
    async with served() as store:
        store.peer.capabilities = CAPABILITIES
        await filled(store, MANY)
        await store.node.drain()
        request = store.peer.request(method, *argument)
        store.handle(request)
        for _ in range(turns_before):
            await asyncio.sleep(0)
        store.node.commands.turns.close()
        await turn()
        assert request.answered
        failure = request.failure
        assert (failure is None) <= (turns_before > 0), "the work was under way"
        assert failure is None or (failure.code, failure.outcome) == (5005, "not_applied")


@pytest.mark.usefixtures("reported")
async def test_the_end_of_a_node_is_not_reported_by_a_request_whose_argument_is_freed() -> None:
    async with served() as store:
        request = store.peer.request("set_many", [[key, b""] for key in KEYS] + [["", b""]])
        store.handle(request)
        while not request.answered:
            await asyncio.sleep(0)
        assert len(store.node.commands.turns), "the list is freed in slices"
        store.node.commands.turns.close()
        await turn()


async def test_a_queue_that_was_closed_takes_no_more_work() -> None:
    async with served() as store:
        store.node.commands.turns.close()
        request = await store.ask("get_many", MANY)
        assert request.code == 5005
