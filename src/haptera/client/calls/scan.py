"""A scan: the entries of a range, page by page, as an asynchronous iterator."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from typing import TYPE_CHECKING

from haptera.client.calls.entry import Entry, entry_of
from haptera.client.calls.methods import Row, Scanned
from haptera.client.calls.streamed_answer import StreamedAnswer

if TYPE_CHECKING:
    from haptera.client.channels.channel import StreamEnd


class Scan(StreamedAnswer[list[Row], Scanned]):
    """The entries of a range in key order, all as they were at one revision (spec/protocol.md, section 7).

    ``async for entry in db.scan(...)``. A loop that is left early ends the scan at the server as soon as the object is
    dropped; ``async with db.scan(...) as rows`` or `aclose` end it at a known place. May be iterated once.
    """

    __slots__ = ("_rows",)

    def __init__(self, pages: AsyncGenerator[list[Row], None], end: StreamEnd[Scanned]) -> None:
        super().__init__(pages, end)
        self._rows: Iterator[Row] = iter(())

    async def __anext__(self) -> Entry:
        while True:
            for row in self._rows:
                if row.expires_at_ms is None:
                    return Entry(row.key, row.value or b"", row.version)
                return entry_of(row.key, row.value or b"", row.version, row.expires_at_ms)
            self._rows = iter(await anext(self._parts))

    async def next_entries(self) -> list[Entry]:
        """Wait for the next entries that arrive together: a page of them.

        Returns:
            The entries; none at the end.
        """
        entries = [_entry(row) for row in self._rows]
        while not entries:
            try:
                entries = [_entry(row) for row in await anext(self._parts)]
            except StopAsyncIteration:
                break
        return entries

    def __repr__(self) -> str:
        state = "under way" if self.count is None else f"{self.count} entries at revision {self.revision}"
        return f"<haptera.Scan {state}>"

    @property
    def count(self) -> int | None:
        """The number of entries; None before the end."""
        return None if self._end.result is None else self._end.result.count

    @property
    def last_key(self) -> str | None:
        """The key of the last entry; None before the end, and where there was none."""
        return None if self._end.result is None else self._end.result.last_key

    async def aclose(self) -> None:
        """End the scan, at the server too. Harmless after the end."""
        self._rows = iter(())
        await super().aclose()


def _entry(row: Row) -> Entry:
    return entry_of(row.key, row.value or b"", row.version, row.expires_at_ms)
