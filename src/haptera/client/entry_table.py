"""Tables of entries and events for notebooks and prompts, drawn by rich."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TypeVar

from haptera.client.typed.typed_entries import TypedEntry, TypedEvent
from haptera.client.watches.event import Event
from haptera.errors import ConfigurationError, printable

if TYPE_CHECKING:
    from rich.table import Table

    from haptera.client.calls.entry import Entry

T = TypeVar("T")

#: Characters of a value in a table: of larger ones the beginning is shown, and the size.
VALUE_SHOWN_MAX: Final = 200
#: Rows of a table: a notebook keeps all of them, in its file too.
ROWS_MAX: Final = 1000


def table(
    entries: Iterable[Entry | Event | TypedEntry[T] | TypedEvent[T] | None], *, title: str | None = None
) -> Table:
    """Return a table of entries or events, which IPython and `rich.print` draw.

        >>> from haptera.notebook import table
        >>> _ = await db.set_many({"fruit/apple": "red", "fruit/plum": "blue"})
        >>> rows = [entry async for entry in db.scan(prefix="fruit/")]
        >>> table(rows).row_count
        2

    A value that is no UTF-8 is shown with escapes, and no character of a key or a value is obeyed by the terminal.

    Args:
        entries: Entries of `Database.scan` or `Database.get_many`, or events of `Database.watch`; None is left out. Of
            more than 1,000 the first are shown, and a last row says how many there are beyond.
        title: A line above the table.

    Returns:
        The table.

    Raises:
        ConfigurationError: The package rich is missing: the extra ``haptera[cli]`` has it.
    """
    try:
        from rich.table import Table as RichTable  # noqa: PLC0415  # an extra has it
        from rich.text import Text  # noqa: PLC0415
    except ModuleNotFoundError:
        raise ConfigurationError("tables need the package rich: pip install 'haptera[cli]'") from None
    rows = [entry for entry in entries if entry is not None]
    with_kind = any(isinstance(row, Event | TypedEvent) for row in rows)
    drawn = RichTable(title=None if title is None else Text(printable(title)), header_style="bold")
    for column in ("kind",) * with_kind + ("key", "value", "version", "expires at"):
        drawn.add_column(column, style="cyan" if column == "key" else None, overflow="fold")
    for row in rows[:ROWS_MAX]:
        kind = (str(getattr(row, "kind", "")),) * with_kind
        cells = (*kind, printable(row.key), _value(row.value), str(row.version), _time(row.expires_at))
        drawn.add_row(*(Text(cell) for cell in cells))
    if len(rows) > ROWS_MAX:
        drawn.add_row(*[""] * with_kind, f"… {len(rows) - ROWS_MAX:,} more", "", "", "")
    return drawn


def _value(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes):
        text = value[: 4 * VALUE_SHOWN_MAX].decode(errors="backslashreplace")
        beyond = f"… ({len(value):,} bytes)"
    else:
        text, beyond = repr(value), "…"
    shortened = printable(text[:VALUE_SHOWN_MAX])
    return shortened if len(text) <= VALUE_SHOWN_MAX else shortened + beyond


def _time(expires_at: float | None) -> str:
    return "" if expires_at is None else datetime.fromtimestamp(expires_at, UTC).isoformat(" ", "seconds")
