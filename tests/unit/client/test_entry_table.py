"""Tables of entries and events, and the texts of objects at a prompt: short, honest, and obeyed by no terminal."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

import haptera
from haptera import Entry, Event, typed
from haptera.client.calls.entry import VALUE_SHOWN_MAX
from haptera.client.entry_table import ROWS_MAX
from haptera.client.entry_table import VALUE_SHOWN_MAX as CELL_MAX
from haptera.errors import ConfigurationError
from haptera.notebook import table
from haptera.testing import node

if TYPE_CHECKING:
    from rich.table import Table

pytest.importorskip("rich", reason="rich is not installed: the extra haptera[cli] has it")


class Config(msgspec.Struct):
    host: str


def drawn(made: Table) -> str:
    from rich.console import Console

    output = io.StringIO()
    Console(file=output, width=200).print(made)
    return output.getvalue()


def test_a_table_has_a_row_for_each_entry() -> None:
    made = table([Entry("a", b"red", 3), None, Entry("b", b"blue", 4, 1_800_000_000.0)], title="fruit")
    assert [str(column.header) for column in made.columns] == ["key", "value", "version", "expires at"]
    text = drawn(made)
    assert "fruit" in text
    assert made.row_count == 2
    assert "2027-01-15 08:00:00+00:00" in text


def test_a_table_of_events_has_their_kinds() -> None:
    text = drawn(table([Event("put", "a", b"red", 3), Event("delete", "a", None, 4)]))
    assert "kind" in text
    assert "delete" in text


def test_a_table_of_values_with_a_type_shows_them() -> None:
    assert "Config(host='x')" in drawn(table([typed.TypedEntry("a", Config("x"), 1)]))


def test_no_character_of_a_key_or_a_value_is_obeyed_by_a_terminal() -> None:
    text = drawn(table([Entry("[red]\x1b[2J", b"\x1b[31m\xff[bold]", 1)], title="\x1b]0;x"))
    assert "\x1b" not in text
    assert "[red]" in text
    assert "\\xff[bold]" in text


def test_a_table_is_bounded_and_says_what_it_leaves_out() -> None:
    text = drawn(table([Entry(f"k{number}", b"v" * 1_000_000, 1) for number in range(3)]))
    assert "(1,000,000 bytes)" in text
    assert "v" * (CELL_MAX + 1) not in text.replace("\n", "")
    made = table(Entry("k", b"", 1) for _ in range(ROWS_MAX + 5))
    assert made.row_count == ROWS_MAX + 1
    assert "5 more" in drawn(made)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.table", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'haptera\[cli\]'"):
        table([])


def test_the_text_of_an_entry_is_short_and_says_how_long_its_value_is() -> None:
    assert repr(Entry("a", b"red", 3)) == "Entry(key='a', value=b'red', version=3)"
    assert repr(Entry("a", b"", 3, 9.5)) == "Entry(key='a', value=b'', version=3, expires_at=9.5)"
    long = repr(Entry("a", b"v" * 8_000_000, 3))
    assert "(8,000,000 bytes)" in long
    assert len(long) < VALUE_SHOWN_MAX + 100
    event = Event("put", "a", b"v" * 1000, 3, Entry("a", b"w" * 1000, 2))
    assert repr(event).count("(1,000 bytes)") == 2
    assert repr(Event("delete", "a", None, 3)) == "Event('delete', key='a', version=3)"


async def test_objects_say_what_they_are_and_how_far() -> None:
    async with node() as url, haptera.connect(url) as db:
        await db.set("a", b"1")
        scan = db.scan()
        assert repr(scan) == "<haptera.Scan under way>"
        assert [entry.key async for entry in scan] == ["a"]
        assert repr(scan) == "<haptera.Scan 1 entries at revision 1>"
        watch = db.watch("a", start_revision=1)
        assert repr(watch) == "<haptera.Watch not begun>"
        await anext(watch)
        assert repr(watch) == "<haptera.Watch at revision 1>"
        await watch.aclose()
        assert repr(watch) == "<haptera.Watch closed>"
        async with db.cached(prefix="") as cache, db.transaction() as tx:
            assert repr(cache) == "<haptera.Cache 1 keys, at revision 1>"
            await tx.get("a")
            assert repr(tx) == "<haptera.Transaction open: 1 read, 0 written>"
        assert repr(tx) == "<haptera.Transaction ended: 1 read, 0 written>"
        assert repr(cache) == "<haptera.Cache 1 keys, ended>"


IPYTHON = shutil.which("ipython", path=str(Path(sys.executable).parent))


@pytest.mark.skipif(IPYTHON is None, reason="IPython is not installed; .ci/run installs it")
async def test_a_database_is_awaited_at_the_prompt_of_ipython(tmp_path: Path) -> None:
    assert IPYTHON is not None
    calls = ('db = await haptera.open("data")', 'await db.set("a", "b")', 'await db.get("a")', "await db.aclose()")
    lines = "\n".join(("import haptera", *calls, ""))
    command = [IPYTHON, "--no-banner", "--colors=NoColor", "--ipython-dir", str(tmp_path)]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert "Entry(key='a', value=b'b', version=1)" in done.stdout
    assert "Error" not in done.stdout
