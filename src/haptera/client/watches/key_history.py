"""The history of a key, as an asynchronous iterator."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable

import msgspec

from haptera.client.calls.methods import Count, Milliseconds, Revision
from haptera.client.watches.event import Event, kind_of


class PastRow(msgspec.Struct, array_like=True, frozen=True, gc=False):
    version: Revision
    kind: Count
    value: bytes | None
    expires_at_ms: Milliseconds | None = None
    time_ms: Milliseconds | None = None
    user: str | None = None


class Past(msgspec.Struct, array_like=True, frozen=True):
    """A page of the history of a key."""

    rows: list[PastRow]
    more: bool
    oldest: Revision


async def changes(
    key: str, page: Callable[[int, int | None], Awaitable[Past]], after: int, limit: int | None
) -> AsyncGenerator[Event, None]:
    """The changes of a key above the version ``after``, ``limit`` of them at most, of pages that ``page`` gives."""
    more = True
    while more and limit != 0:
        past = await page(after, limit)
        for row in past.rows:
            yield _event_of(key, row)
        more = past.more
        if past.rows:
            after = past.rows[-1].version
        if limit is not None:
            limit -= min(len(past.rows), limit)


def _event_of(key: str, row: PastRow) -> Event:
    time = None if row.time_ms is None else row.time_ms / 1000
    expires_at = None if row.expires_at_ms is None else row.expires_at_ms / 1000
    return Event(kind_of(row.kind), key, row.value, row.version, None, expires_at, time, row.user)
