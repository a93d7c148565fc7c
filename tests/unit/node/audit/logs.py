"""Audit logs for tests, over a file system in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from haptera.node.audit.chain import BEGINNING, Head
from haptera.node.audit.event import AuditEvent
from haptera.node.audit.files import AuditFiles, Sizes
from haptera.node.audit.found_files import find_files
from haptera.node.offline.audit import verify_audit
from haptera.testing.filesystem import MemoryFileSystem

if TYPE_CHECKING:
    from haptera.node.offline.audit import AuditVerification

FOLDER = "/data/audit"


def new_files() -> MemoryFileSystem:
    fs = MemoryFileSystem()
    fs.mkdir("/data")
    fs.sync_directory("/")
    return fs


def log_on(fs: MemoryFileSystem, file_size: int = 1 << 20, retain: int = 0, noted: Head = BEGINNING) -> AuditFiles:
    """An open log."""
    log = AuditFiles(fs, FOLDER, Sizes(file_size, retain), clock_ms=lambda: 7)
    log.open(noted)
    return log


def event(number: int = 0, **fields: Any) -> AuditEvent:
    return AuditEvent(**{"time_ms": number, "kind": "data", "method": "kv.set", "key": f"key {number}", **fields})


def add(log: AuditFiles, *numbers: int) -> None:
    """Write an event for each number, one after the other."""
    for number in numbers:
        assert log.append([event(number)]) == (1, None)


def paths(fs: MemoryFileSystem) -> list[str]:
    return list(find_files(fs, FOLDER).values())


def lines(fs: MemoryFileSystem) -> list[dict[str, Any]]:
    """The fields of all lines, of all files."""
    return [msgspec.json.decode(line) for path in paths(fs) for line in fs.read(path).splitlines()]


def methods(fs: MemoryFileSystem) -> list[str]:
    return [line["method"] for line in lines(fs)]


def verified(fs: MemoryFileSystem, *heads: Head) -> AuditVerification:
    return verify_audit(fs, "/data", heads)
