"""Any one change of an audit log is found, and named with its file and line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.node.audit.logs import FOLDER, add, log_on, new_files, paths, verified

if TYPE_CHECKING:
    from haptera.testing.filesystem import MemoryFileSystem

#: The lines of a log by file, and the places of all of them.
Log = tuple[dict[str, list[bytes]], list[tuple[str, int]]]


def made(count: int, file_size: int) -> dict[str, list[bytes]]:
    """The lines of a log by file."""
    fs = new_files()
    add(log_on(fs, file_size=file_size), *range(count))
    return {path: fs.read(path).splitlines(keepends=True) for path in paths(fs)}


def stored(files: dict[str, list[bytes]]) -> MemoryFileSystem:
    fs = new_files()
    fs.mkdir(FOLDER)
    for path, lines in files.items():
        fs.write(path, b"".join(lines))
    return fs


def named(files: dict[str, list[bytes]]) -> list[tuple[str, int]]:
    """The files and lines that the verification names."""
    return [(fault.file, fault.line) for fault in verified(stored(files)).faults]


@st.composite
def logs(draw: st.DrawFn) -> Log:
    """A log, and the places of its lines."""
    files = made(draw(st.integers(3, 12)), draw(st.sampled_from([300, 700, 1 << 20])))
    return files, [(path, place) for path, lines in files.items() for place in range(len(lines))]


@given(logs(), st.data())
def test_a_line_that_was_edited_is_named(log: Log, data: st.DataObject) -> None:
    files, places = log
    path, place = data.draw(st.sampled_from(places))
    line = bytearray(files[path][place])
    at = data.draw(st.integers(0, len(line) - 2))
    line[at] = data.draw(st.integers(0, 255).filter(lambda byte: byte not in (line[at], 10)))
    files[path][place] = bytes(line)
    assert named(files) == [(path, place + 1)]


@given(logs(), st.data())
def test_a_line_that_was_taken_out_is_missed_in_the_next_one(log: Log, data: st.DataObject) -> None:
    files, places = log
    path, place = data.draw(st.sampled_from(places[:-1]))
    del files[path][place]
    found = named(files)
    assert found
    if files[path][place:]:
        assert (path, place + 1) in found


@given(logs(), st.data())
def test_a_line_that_was_put_in_is_named(log: Log, data: st.DataObject) -> None:
    files, places = log
    path, place = data.draw(st.sampled_from(places))
    other = data.draw(st.sampled_from(places))
    copied = files[other[0]][other[1]]
    files[path].insert(place, copied)
    found = named(files)
    assert found
    assert {line for file, line in found if file == path} & {place + 1, place + 2}


@given(logs(), st.data())
def test_lines_that_changed_places_are_named(log: Log, data: st.DataObject) -> None:
    files, places = log
    (first, at), (second, other) = data.draw(st.lists(st.sampled_from(places), min_size=2, max_size=2, unique=True))
    files[first][at], files[second][other] = files[second][other], files[first][at]
    found = named(files)
    assert (first, at + 1) in found or (second, other + 1) in found


@given(logs(), st.data())
def test_a_file_that_was_cut_off_is_missed_in_the_next_one(log: Log, data: st.DataObject) -> None:
    files, _ = log
    if len(files) > 1:
        path = data.draw(st.sampled_from(list(files)[:-1]))
        whole = b"".join(files[path])
        files[path] = [whole[: data.draw(st.integers(0, len(whole) - 1))]]
        assert named(files)


@given(logs(), st.data())
def test_a_chain_that_was_made_again_from_a_place_on_has_another_head(log: Log, data: st.DataObject) -> None:
    """The chain alone does not show it: the head of before does."""
    files, places = log
    fs = stored(files)
    head = verified(fs).head
    assert head is not None
    kept = data.draw(st.integers(1, len(places) - 1))
    forged = new_files()
    again = log_on(forged)
    add(again, *range(kept - 1), *(100 + number for number in range(len(places) - kept + 1)))
    assert verified(forged).sound
    assert not verified(forged, head).sound
    assert verified(fs, head).sound
