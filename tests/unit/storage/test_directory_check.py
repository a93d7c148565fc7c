"""The check of a data directory names what is wrong, where, and all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from haptera.errors import StorageError
from haptera.storage import Check, Finding, check_directory, open_keyring
from haptera.storage.check_findings import FINDINGS_MAX, Findings
from haptera.storage.segment_format import RECORD_HEADER_SIZE, SEGMENT_HEADER_SIZE
from haptera.testing.filesystem import MemoryFile, MemoryFileSystem
from tests.fault.test_storage_damage import COUNT, RECORD_SIZE, active_store, closed_store, paths, segment_paths
from tests.support.thinned import some, thinned
from tests.unit.storage.stores import LOG_PATH, PATH, Store

if TYPE_CHECKING:
    from collections.abc import Callable


def check(fs: MemoryFileSystem) -> Check:
    return check_directory(fs, PATH, open_keyring)


def places(found: Check, kind: str = "damage") -> list[tuple[str, int]]:
    return [(finding.file, finding.offset) for finding in found.findings if finding.kind == kind]


def flip(fs: MemoryFileSystem, path: str, *offsets: int) -> None:
    data = bytearray(fs.read(path))
    for at in offsets:
        data[at] ^= 0x10
    fs.write(path, bytes(data))


@pytest.mark.parametrize("make", [closed_store, active_store])
def test_a_sound_directory_has_no_findings(make: Callable[[], MemoryFileSystem]) -> None:
    found = check(make())
    assert list(found.findings) == []
    assert len(found.node_id) == 16
    assert sum(segment.records for segment in found.segments) == COUNT
    assert [segment.number for segment in found.segments] == list(range(1, len(found.segments) + 1))
    assert all(segment.whole for segment in found.segments)


@pytest.mark.parametrize("make", [closed_store, active_store])
def test_a_check_changes_nothing_and_takes_no_lock(make: Callable[[], MemoryFileSystem]) -> None:
    fs = make()
    flip(fs, segment_paths(fs)[0], 100)
    check(fs)
    assert {call for call, _ in fs.calls} <= {"open", "listdir", "pread", "size", "drop_cache"}


def test_a_check_works_while_a_process_holds_the_directory() -> None:
    fs = MemoryFileSystem()
    store = Store.open(fs)
    store.append(COUNT)
    found = check(fs)
    assert not list(found.findings)
    assert sum(segment.records for segment in found.segments) == COUNT


def test_each_of_several_faults_is_named() -> None:
    fs = closed_store()
    first, second = segment_paths(fs)[:2]
    third_record = SEGMENT_HEADER_SIZE + 2 * RECORD_SIZE
    flip(fs, first, SEGMENT_HEADER_SIZE + RECORD_HEADER_SIZE, third_record + 5)
    flip(fs, second, SEGMENT_HEADER_SIZE + RECORD_SIZE + RECORD_HEADER_SIZE + 1)
    flip(fs, f"{PATH}/node.toml", 14)
    found = check(fs)
    assert places(found) == [
        (f"{PATH}/node.toml", 0),
        (first, SEGMENT_HEADER_SIZE),
        (first, third_record),
        (second, SEGMENT_HEADER_SIZE + RECORD_SIZE),
    ]
    assert [segment.records for segment in found.segments][:2] == [2, 3]
    assert [segment.index for segment in found.segments][:2] == [0, 5]


def test_the_records_behind_a_damaged_header_of_a_record_are_read() -> None:
    fs = closed_store()
    first = segment_paths(fs)[0]
    for at in range(RECORD_HEADER_SIZE):
        again = fs.power_failure("keep")
        flip(again, first, SEGMENT_HEADER_SIZE + RECORD_SIZE + at)
        found = check(again)
        assert places(found) == [(first, SEGMENT_HEADER_SIZE + RECORD_SIZE)]
        assert (found.segments[0].records, found.segments[0].seen_index) == (3, 4)


def test_a_damaged_tag_leaves_the_next_record_without_proof() -> None:
    """A record is chained to the tag before it, so one flipped byte costs two records, and both are named."""
    fs = closed_store()
    first = segment_paths(fs)[0]
    flip(fs, first, SEGMENT_HEADER_SIZE + RECORD_SIZE - 1)
    found = check(fs)
    assert places(found) == [(first, SEGMENT_HEADER_SIZE), (first, SEGMENT_HEADER_SIZE + RECORD_SIZE)]
    assert found.segments[0].records == 2


@thinned(4)
@pytest.mark.parametrize("mask", [0x01, 0xFF])
@pytest.mark.parametrize("make", [closed_store, active_store])
def test_each_flipped_byte_is_found(make: Callable[[], MemoryFileSystem], mask: int, step: int) -> None:
    """Beside the last record of an active segment, where a flip can make the zero that a cut write leaves."""
    whole = make()
    last = segment_paths(whole)[-1]
    keyring = check(whole).keyring
    assert keyring is not None
    for path in paths(whole):
        data = whole.read(path)
        for at in some(range(len(data)), step):
            fs = whole.power_failure("keep")
            fs.write(path, data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :])
            found = check(fs)
            findings = found.findings
            if path.endswith("keys") and found.keyring is not None and found.keyring.keys == keyring.keys:
                continue  # a letter of the notice
            assert len(findings), (path, at)
            if make is closed_store or path != last:
                assert findings.damaged, (path, at)
            assert any(finding.file == path for finding in findings), (path, at)


@pytest.mark.parametrize("make", [closed_store, active_store])
def test_each_missing_file_is_found(make: Callable[[], MemoryFileSystem]) -> None:
    whole = make()
    for path in paths(whole)[:-1]:  # that there was a last segment no other file says
        fs = whole.power_failure("keep")
        fs.unlink(path)
        if path != segment_paths(whole)[0]:  # that one may be missing: retention removes the oldest
            assert path in [finding.file for finding in check(fs).findings], path


def test_a_cut_sealed_segment_is_damage_wherever_it_is_cut() -> None:
    fs = closed_store()
    path = segment_paths(fs)[0]
    data = fs.read(path)
    for length in range(len(data)):
        fs.write(path, data[:length])
        assert check(fs).findings.damaged, length


def test_a_torn_tail_and_an_unfinished_file_are_named_and_are_no_damage() -> None:
    fs = active_store()
    path = segment_paths(fs)[-1]
    data = fs.read(path)
    end = len(data.rstrip(b"\0"))
    fs.write(path, data[: end - 1] + bytes(len(data) - end + 1))
    left = [f"{LOG_PATH}/{99:016x}.seg.tmp", f"{PATH}/keys.tmp"]
    for each in left:
        fs.write(each, b"x")
    found = check(fs)
    assert places(found, "torn_tail") == [(path, end - RECORD_SIZE)]
    assert sorted(places(found, "left_over")) == sorted((each, 0) for each in left)
    assert not found.findings.damaged


def test_without_keys_the_headers_are_checked_and_the_missing_keys_named() -> None:
    fs = closed_store()
    fs.unlink(f"{PATH}/keys")
    flip(fs, segment_paths(fs)[1], 3)
    found = check(fs)
    assert places(found, "wrong_key") == [(f"{PATH}/keys", 0)]
    assert places(found) == [(segment_paths(fs)[1], 0)]
    assert found.keyring is None


def test_segments_under_another_key_are_named_one_by_one() -> None:
    fs = closed_store()
    other = closed_store()
    for name in ("keys", "master.key"):
        fs.write(f"{PATH}/{name}", other.read(f"{PATH}/{name}"))
    assert places(check(fs), "wrong_key") == [(path, 0) for path in segment_paths(fs)]


def test_where_there_is_nothing_there_is_no_data_directory() -> None:
    fs = MemoryFileSystem()
    for make in ((), ("data",), ("data/log",)):
        for path in make:
            fs.mkdir(path)
        with pytest.raises(StorageError, match="there is no data directory"):
            check(fs)


def test_a_file_that_cannot_be_read_is_a_finding_and_the_others_are_checked() -> None:
    fs = closed_store()
    path = segment_paths(fs)[1]
    before = len(fs.calls)
    good = check(fs)
    fs.fail_at = len(fs.calls) + fs.calls.index(("pread", path)) + 1 - before
    found = check(fs)
    assert places(found, "unreadable") == [(path, 0)]
    assert [segment.whole for segment in found.segments].count(False) == 1
    assert len(found.segments) == len(good.segments)


def test_findings_are_bounded_and_the_others_counted() -> None:
    findings = Findings()
    for at in range(FINDINGS_MAX + 5):
        findings.add(Finding("damage", "f", at, "a", "b"))
    assert len(findings) == FINDINGS_MAX
    assert findings.omitted == 5


class Late:
    """An open file whose last bytes are seen after some reads: a node is writing them."""

    def __init__(self, file: MemoryFile, missing: int, reads: int) -> None:
        self._file = file
        self._missing = missing
        self._reads = reads

    def pread(self, size: int, offset: int) -> bytes:
        data = self._file.pread(size, offset)
        self._reads -= 1
        if self._reads < 0:
            return data
        keep = len(data.rstrip(b"\0")) - self._missing
        return data[:keep] + bytes(len(data) - keep)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@pytest.mark.parametrize("reads", range(1, 6))
def test_a_record_that_a_node_writes_meanwhile_is_no_damage(monkeypatch: pytest.MonkeyPatch, reads: int) -> None:
    fs = active_store()
    last = segment_paths(fs)[-1]
    real = fs.open
    monkeypatch.setattr(
        fs, "open", lambda path, mode: Late(real(path, mode), 20, reads) if path == last else real(path, mode)
    )
    found = check(fs)
    assert not found.findings.damaged
    assert sum(segment.records for segment in found.segments) >= COUNT - 1
