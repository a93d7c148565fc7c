"""Answers for a connection without `kv_ttl`: no entry in them says when it expires (spec/protocol.md, section 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from haptera.state import Row, StoredEntry


def without_times(result: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a result whose entries have nil for the time: the result itself, or the entries among its fields."""
    return tuple(map(_plain, result)) if _plain(result) is result else _plain(result)


def rows_without_times(rows: list[Row]) -> list[Row]:
    """As `without_times`, of the rows of a scan."""
    return [(key, value, version, None) for key, value, version, _ in rows]


def entries_without_times(entries: list[StoredEntry | None]) -> list[StoredEntry | None]:
    """As `without_times`, of the entries of a get_many."""
    return [None if entry is None else (entry[0], entry[1], None) for entry in entries]


def _plain(field: Any) -> Any:
    if type(field) is list:
        return entries_without_times(field)
    if type(field) is not tuple:
        return field
    if len(field) >= 3 and type(field[0]) is bytes:
        return (*field[:2], None, *field[3:])
    return tuple(map(_plain, field))
