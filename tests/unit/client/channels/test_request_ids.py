"""Request ids: UUIDs that never repeat, of one client or of two."""

from __future__ import annotations

import copy
import pickle
import uuid
from collections.abc import Callable
from typing import Any

import pytest

import haptera
from haptera.client.channels.request_ids import RequestIds
from haptera.testing import node


def test_an_id_is_a_uuid_of_version_8() -> None:
    made = uuid.UUID(bytes=RequestIds().new())
    assert (made.version, made.variant) == (8, uuid.RFC_4122)


def test_no_id_comes_twice() -> None:
    makers = [RequestIds() for _ in range(10)]
    ids = [maker.new() for maker in makers for _ in range(100)]
    assert len(set(ids)) == 1000


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))])
def test_a_copy_has_ids_of_its_own(copied: Callable[[Any], Any]) -> None:
    """Trap: identity drawn before a fork, or a copy, and shared."""
    made = RequestIds()
    ids = {made.new(), copied(made).new(), copied(made).new(), made.new()}
    assert len(ids) == 4


async def test_the_copy_of_a_client_is_another_client() -> None:
    """Trap: identity drawn before a fork, or a copy, and shared."""
    async with node(storage="memory") as url:
        db = haptera.connect(url)
        clients = [db, copy.deepcopy(db), copy.deepcopy(db)]
        assert [await client.increment("n") for client in clients] == [1, 2, 3]
        for client in clients:
            await client.aclose()


def test_both_halves_of_the_ids_of_two_clients_differ() -> None:
    """Either half alone keeps them apart: 60 bits of one, and where the counter of the other begins."""
    ids = [RequestIds().new() for _ in range(100)]
    assert len({made[:8] for made in ids}) == len({made[8:] for made in ids}) == 100
