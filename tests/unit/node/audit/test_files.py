"""The files of the audit log: rotation, retention, repair, a full and a failed disk (spec/audit.md, section 4)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from haptera.node.audit.chain import BEGINNING, Head
from haptera.node.audit.files import BATCH_SIZE_MAX, AuditFiles, Sizes
from haptera.storage import DiskFailed, DiskFull, OsFileSystem
from tests.unit.node.audit.logs import add, event, lines, log_on, methods, new_files, paths, verified

if TYPE_CHECKING:
    from pathlib import Path


def test_a_log_without_an_event_makes_nothing() -> None:
    fs = new_files()
    log_on(fs).close()
    assert fs.listdir("/data") == []


def test_the_first_line_begins_the_chain_and_a_start_goes_on_with_it() -> None:
    fs = new_files()
    for number in range(3):
        log = log_on(fs)
        add(log, number)
        log.close()
    assert methods(fs) == ["audit.begun", "kv.set", "kv.set", "kv.set"]
    assert [line["sequence"] for line in lines(fs)] == [1, 2, 3, 4]
    assert verified(fs).sound


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    log = AuditFiles(OsFileSystem(), str(tmp_path / "audit"), Sizes(1 << 20, 0), clock_ms=lambda: 7)
    log.open()
    add(log, 1)
    log.close()
    assert (tmp_path / "audit").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "audit/0000000000000001.jsonl").stat().st_mode & 0o777 == 0o600


def test_a_line_is_synced_when_it_counts() -> None:
    fs = new_files()
    add(log_on(fs), 1)
    assert len(lines(fs.power_failure("drop"))) == 2


def test_a_file_is_named_by_its_first_line_and_the_chain_goes_on_over_files() -> None:
    fs = new_files()
    log = log_on(fs, file_size=600)
    add(log, *range(10))
    assert len(paths(fs)) > 3
    firsts = [int(path[-22:-6]) for path in paths(fs)]
    assert firsts == [line["sequence"] for line in lines(fs) if line["sequence"] in firsts]
    assert all(len(fs.read(path)) <= 600 for path in paths(fs))
    found = verified(fs)
    assert (found.sound, found.lines, found.head) == (True, 11, log.head)


def test_a_large_batch_is_written_in_several() -> None:
    fs = new_files()
    log = log_on(fs, file_size=1 << 30)
    count = 3 * BATCH_SIZE_MAX // 400
    assert log.append([event(number, key="k" * 200) for number in range(count)]) == (count, None)
    assert verified(fs).lines == count + 1
    assert max(len(fs.read(path)) for path in paths(fs)) > 2 * BATCH_SIZE_MAX
    assert sum(1 for name, _ in fs.calls if name == "pwrite") > 2


def test_retention_removes_the_oldest_files_and_a_line_says_so_before() -> None:
    fs = new_files()
    log = log_on(fs, file_size=1000, retain=3000)
    add(log, *range(60))
    assert sum(len(fs.read(path)) for path in paths(fs)) == log.size <= 4000
    found = verified(fs)
    assert found.sound
    assert found.first > 20
    assert max(line["detail"]["through"] for line in lines(fs) if line["method"] == "audit.removed") == found.first - 1


def test_oldest_files_that_another_has_removed_are_missed() -> None:
    fs = new_files()
    add(log_on(fs, file_size=600), *range(10))
    fs.unlink(paths(fs)[0])
    [fault] = verified(fs).faults
    assert "no line says that they were removed" in fault.problem
    assert (fault.file, fault.line) == (paths(fs)[0], 1)


def test_a_start_removes_what_retention_has_said() -> None:
    """A crash may come between the line and the removal."""
    fs = new_files()
    log = log_on(fs, file_size=1000, retain=3000)
    before: dict[str, bytes] = {}
    for number in range(60):
        kept = {path: fs.read(path) for path in paths(fs)} if number else {}
        add(log, number)
        if gone := kept.keys() - set(paths(fs)):
            before = {path: kept[path] for path in gone}
            break
    log.close()
    for path, data in before.items():
        fs.write(path, data)
    assert verified(fs).sound
    log_on(fs, file_size=1000, retain=3000).close()
    assert not before.keys() & set(paths(fs))


# -- a full disk, and a failed one ----------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["pwrite", "create", "mkdir"])
def test_a_full_disk_leaves_the_log_as_it_was_and_is_tried_again(call: str) -> None:
    fs = new_files()
    log = log_on(fs, file_size=600)
    if call != "mkdir":
        add(log, 1, 2)
    head = log.head
    fs.failing, fs.fail_with = frozenset({call}), errno.ENOSPC
    done, error = log.append([event(number) for number in range(3, 6)])
    assert isinstance(error, DiskFull)
    assert (done, log.head, log.failed) == (0, head, None)
    fs.failing = frozenset()
    assert log.append([event(3)]) == (1, None)
    assert verified(fs).sound
    assert verified(fs).head == log.head


def test_events_before_the_one_that_found_no_room_are_told_as_written() -> None:
    fs = new_files()
    log = log_on(fs, file_size=1 << 30)
    add(log, 0)
    writes = 0
    called = fs.called

    def second_write_fails(name: str, path: str) -> None:
        nonlocal writes
        writes += name == "pwrite"
        called(name, path)
        if name == "pwrite" and writes == 2:
            raise OSError(errno.ENOSPC, "full", path)

    fs.called = second_write_fails  # type: ignore[method-assign]
    done, error = log.append([event(number, key="k" * 200) for number in range(6000)])
    assert isinstance(error, DiskFull)
    assert 0 < done < 6000
    assert verified(fs).lines == done + 2
    assert verified(fs).torn is None


@pytest.mark.parametrize("call", ["pwrite", "fdatasync"])
def test_after_a_failed_write_or_sync_nothing_is_written_until_the_next_start(call: str) -> None:
    """A sync that is tried again succeeds, because the kernel has marked the lost pages clean."""
    fs = new_files()
    log = log_on(fs)
    add(log, 1)
    fs.failing, fs.fail_with = frozenset({call}), errno.EIO
    assert isinstance(log.append([event(2)])[1], DiskFailed)
    fs.failing = frozenset()
    calls = len(fs.calls)
    assert isinstance(log.append([event(3)])[1], DiskFailed)
    assert len(fs.calls) == calls
    after = fs.power_failure("drop")
    log = log_on(after)
    add(log, 4)
    assert verified(after).sound


@pytest.mark.parametrize("call", ["listdir", "open", "pread"])
def test_a_log_that_cannot_be_read_does_not_block_the_start(call: str) -> None:
    fs = new_files()
    log = log_on(fs)
    add(log, 1)
    log.close()
    fs.failing = frozenset({call})
    log = log_on(fs)
    assert isinstance(log.failed, DiskFailed)
    assert log.append([event(2)]) == (0, log.failed)


def test_a_first_file_that_a_failed_write_left_without_a_line_has_one_from_the_next_start_on() -> None:
    """A verifier would take it for a log that was emptied, for as long as nothing is recorded."""
    fs = new_files()
    log = log_on(fs)
    fs.failing, fs.fail_with = frozenset({"pwrite"}), errno.EIO
    assert isinstance(log.append([event(1)])[1], DiskFailed)
    after = fs.power_failure("drop")
    assert after.read(paths(after)[0]) == b""
    log = log_on(after)
    assert (methods(after), log.damage, log.failed) == (["audit.begun"], "", None)
    assert verified(after.power_failure("drop")).sound
    add(log, 2)
    assert methods(after) == ["audit.begun", "kv.set"]
    assert verified(after).sound


def test_a_first_file_without_a_line_is_begun_when_there_is_room() -> None:
    fs = new_files()
    log = log_on(fs)
    fs.failing, fs.fail_with = frozenset({"pwrite"}), errno.ENOSPC
    assert isinstance(log.append([event(1)])[1], DiskFull)
    log.close()
    log = log_on(fs)
    assert log.failed is None
    fs.failing = frozenset()
    assert log.append([event(1)]) == (1, None)
    assert methods(fs) == ["audit.begun", "kv.set"]
    assert verified(fs).sound


def test_a_full_disk_at_the_start_is_tried_again_with_the_first_event() -> None:
    fs = new_files()
    log = log_on(fs)
    add(log, 1)
    log.close()
    fs.write(paths(fs)[0], fs.read(paths(fs)[0])[:-3])
    fs.failing, fs.fail_with = frozenset({"pwrite"}), errno.ENOSPC
    log = log_on(fs)
    assert log.failed is None
    assert isinstance(log.append([event(2)])[1], DiskFull)
    fs.failing = frozenset()
    assert log.append([event(2)]) == (1, None)
    assert methods(fs) == ["audit.begun", "audit.repaired", "kv.set"]


# -- what a start finds ---------------------------------------------------------------------------------------------


def test_a_torn_last_line_at_any_byte_does_not_block_the_start_and_is_recorded() -> None:
    """Trap: audit lines not synced, or a torn last line that blocks the start."""
    fs = new_files()
    add(log_on(fs), 1, 2)
    [path] = paths(fs)
    whole = fs.read(path)
    whole_lines = whole.splitlines(keepends=True)
    for size in range(1, len(whole)):
        after = new_files()
        after.mkdir("/data/audit")
        after.write(path, whole[:size])
        kept = [line for at, line in enumerate(whole_lines) if sum(map(len, whole_lines[: at + 1])) <= size]
        torn = size - sum(map(len, kept))
        log = log_on(after)
        assert log.failed is None
        add(log, 9)
        assert after.read(path).startswith(b"".join(kept))
        assert verified(after).sound
        told = [line for line in lines(after) if line["method"] == "audit.repaired"]
        assert [line["detail"]["bytes"] for line in told] == ([torn] if torn else [])
        assert len(lines(after)) == max(len(kept), 1) + bool(torn) + 1


def test_sectors_of_zeros_at_the_end_are_torn() -> None:
    fs = new_files()
    log = log_on(fs)
    add(log, *range(10))
    log.close()
    [path] = paths(fs)
    whole = fs.read(path)
    at = whole.index(b'"key 5"')
    fs.write(path, whole[:at] + bytes(100) + whole[at + 100 :])
    log = log_on(fs)
    assert methods(fs)[-1] == "audit.repaired"
    assert len(methods(fs)) == 7
    assert verified(fs).sound


def test_a_line_that_was_changed_is_kept_as_evidence_and_the_log_goes_on_elsewhere() -> None:
    fs = new_files()
    log = log_on(fs)
    add(log, *range(10))
    log.close()
    [path] = paths(fs)
    changed = fs.read(path).replace(b"key 5", b"key 6")
    fs.write(path, changed)
    for number in range(2):
        log = log_on(fs)
        add(log, 10 + number)
        log.close()
    assert fs.read(path) == changed
    found = verified(fs)
    assert [(fault.file, fault.line) for fault in found.faults] == [(path, 7)]
    assert methods(fs)[11:] == ["audit.damaged", "kv.set", "kv.set"]
    assert found.lines == 14


def test_only_a_log_that_was_changed_is_damaged() -> None:
    fs = new_files()
    log = log_on(fs)
    add(log, *range(3))
    head = log.head
    log.close()
    (path,) = paths(fs)
    whole = fs.read(path)
    fs.write(path, whole + b'{"seq')  # a crash
    assert log_on(fs).damage == ""
    fs.write(path, whole.replace(b"key 1", b"key 9"))
    assert log_on(fs).damage == "a line of its last file was changed"
    fs = new_files()
    add(log_on(fs), 1)
    behind = log_on(fs, noted=Head(head.sequence + 1, head.digest))
    assert behind.damage == "its last lines were cut off"
    fs = new_files()
    log = log_on(fs)
    add(log, *range(3))
    log.close()
    assert log_on(fs, noted=Head(2, bytes(32))).damage == "it was made again from some line on"


def test_files_that_were_all_emptied_are_no_restored_directory() -> None:
    fs = new_files()
    log = log_on(fs)
    add(log, *range(3))
    log.close()
    (path,) = paths(fs)
    fs.write(path, b"")
    emptied = log_on(fs, noted=log.head)
    assert (methods(fs), emptied.damage) == (["audit.behind"], "its last lines were cut off")
    assert not verified(fs).sound
    restored = log_on(new_files(), noted=log.head)
    assert restored.damage == ""


def test_an_empty_file_that_rotation_has_left_is_gone_on_with() -> None:
    fs = new_files()
    log = log_on(fs, file_size=600)
    add(log, 1, 2)
    log.close()
    fs.write(f"/data/audit/{log.head.sequence + 1:016d}.jsonl", b"")
    fs.write("/data/audit/0000000000000009.jsonl", b"")
    log = log_on(fs, file_size=600)
    add(log, 3, 4, 5)
    assert verified(fs).sound
    assert verified(fs).torn is None


def test_a_log_that_ends_before_a_head_that_was_noted_says_so() -> None:
    fs = new_files()
    log = log_on(fs)
    add(log, *range(5))
    log.close()
    noted, [path] = log.head, paths(fs)
    fs.write(path, b"".join(fs.read(path).splitlines(keepends=True)[:3]))
    log = log_on(fs)
    log.close()
    assert methods(fs)[-1] == "kv.set"
    assert [fault.problem for fault in verified(fs, noted).faults] == [
        "the chain ends with line 3, and line 6 was in it"
    ]
    for _ in range(2):
        log_on(fs, noted=noted).close()
        line = lines(fs)[-1]
        assert (line["sequence"], line["method"], line["detail"]) == (7, "audit.behind", {"noted": str(noted)})
        assert line["previous"] == noted.digest.hex()
    assert [fault.problem for fault in verified(fs).faults] == [
        "line 7 stands behind 3: what was between them is missing"
    ]


def test_a_log_that_has_another_line_than_the_noted_one_says_so() -> None:
    fs = new_files()
    log = log_on(fs, file_size=600)
    add(log, *range(9))
    log.close()
    assert len(paths(fs)) > 2
    heads = [Head(line["sequence"] - 1, bytes.fromhex(line["previous"])) for line in lines(fs)[1:]]
    for head in [*heads, log.head]:
        log_on(fs, noted=head).close()
    assert "audit.differs" not in methods(fs)
    for count, number in enumerate((1, 5, log.head.sequence), 1):
        other = Head(number, bytes(32))
        log_on(fs, noted=other).close()
        assert methods(fs).count("audit.differs") == count
        assert lines(fs)[-1]["detail"] == {"noted": str(other)}
    assert verified(fs).sound


def test_a_log_without_a_line_goes_on_behind_the_noted_head_and_is_whole_from_there_on() -> None:
    fs, noted = new_files(), Head(41, b"n" * 32)
    log = log_on(fs, noted=noted)
    add(log, 1)
    log.close()
    first = lines(fs)[0]
    assert (first["sequence"], first["method"], first["previous"]) == (42, "audit.continued", noted.digest.hex())
    assert paths(fs) == ["/data/audit/0000000000000042.jsonl"]
    found = verified(fs)
    assert (found.sound, found.first, found.lines) == (True, 42, 2)
    assert verified(fs, noted).unknown == [noted]


def test_a_line_that_looks_like_the_beginning_of_a_log_hides_no_missing_lines() -> None:
    fs = new_files()
    log = log_on(fs, file_size=600)
    add(log, 1)
    log.close()
    log = log_on(fs, file_size=600)
    for _ in range(3):
        assert log.append([event(key='"kind":"log","method":"audit.continued"')]) == (1, None)
    log.close()
    fs.unlink(paths(fs)[0])
    assert not verified(fs).sound


def test_the_beginning_is_no_head_to_be_behind() -> None:
    fs = new_files()
    log_on(fs, noted=BEGINNING)
    assert fs.listdir("/data") == []
