"""Request ids: UUIDs that never repeat, of one client or of two."""

from __future__ import annotations

import uuid

from haptera.client.request_ids import RequestIds


def test_an_id_is_a_uuid_of_version_8() -> None:
    made = uuid.UUID(bytes=RequestIds().new())
    assert (made.version, made.variant) == (8, uuid.RFC_4122)


def test_no_id_comes_twice() -> None:
    makers = [RequestIds() for _ in range(10)]
    ids = [maker.new() for maker in makers for _ in range(100)]
    assert len(set(ids)) == 1000


def test_both_halves_of_the_ids_of_two_clients_differ() -> None:
    """Either half alone keeps them apart: 60 bits of one, and where the counter of the other begins."""
    ids = [RequestIds().new() for _ in range(100)]
    assert len({made[:8] for made in ids}) == len({made[8:] for made in ids}) == 100
