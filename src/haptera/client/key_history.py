"""The history of a key, as an asynchronous iterator."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final, Literal

import msgspec

from haptera.client.methods import Count, Milliseconds, Revision
from haptera.errors import Code, RemoteProtocolError


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


ChangeKind = Literal["present", "put", "delete", "expire"]

_KINDS: Final[tuple[ChangeKind, ...]] = ("present", "put", "delete", "expire")


class Change(msgspec.Struct, frozen=True):
    """One version of a key.

    ``kind`` is ``"put"``, ``"delete"`` or ``"expire"``, or ``"present"`` for an entry that was written before the
    changes that the node keeps, whose ``time`` and ``user`` are therefore None. ``version`` is the store's revision of
    the change, ``value`` the value of after (None where there is none), ``time`` Unix time in seconds, ``user`` the
    name of the user, empty without authentication, ``expires_at`` Unix time in seconds or None.
    """

    kind: ChangeKind
    version: int
    value: bytes | None
    time: float | None = None
    user: str | None = None
    expires_at: float | None = None

    @property
    def text(self) -> str:
        """The value as text, empty where there is none; raises ``UnicodeDecodeError`` if it is not UTF-8."""
        return (self.value or b"").decode()


async def changes(
    page: Callable[[int, int | None], Awaitable[Past]], after: int, limit: int | None
) -> AsyncGenerator[Change, None]:
    """The changes above the version ``after``, ``limit`` of them at most, of pages that ``page`` gives."""
    more = True
    while more and limit != 0:
        past = await page(after, limit)
        for row in past.rows:
            yield _change_of(row)
        more = past.more
        if past.rows:
            after = past.rows[-1].version
        if limit is not None:
            limit -= min(len(past.rows), limit)


def _change_of(row: PastRow) -> Change:
    if row.kind >= len(_KINDS):
        raise RemoteProtocolError(Code.MALFORMED_FRAME, f"the server's change is of the unknown kind {row.kind}")
    time = None if row.time_ms is None else row.time_ms / 1000
    expires_at = None if row.expires_at_ms is None else row.expires_at_ms / 1000
    return Change(_KINDS[row.kind], row.version, row.value, time, row.user, expires_at)
