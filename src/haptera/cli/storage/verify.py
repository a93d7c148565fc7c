"""``haptera storage verify``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from haptera.cli import output
from haptera.cli.exit_codes import DAMAGED, DONE
from haptera.cli.offline import EXIT_CODES, Offline, exit_code, offline_options

if TYPE_CHECKING:
    from haptera.node import Start, Verification
    from haptera.storage import Finding

#: How a line of text calls each kind of finding.
KINDS: Final = {
    "damage": "damaged",
    "wrong_key": "no key",
    "newer_format": "newer format",
    "unreadable": "cannot be read",
    "torn_tail": "torn tail",
    "left_over": "left over",
}

_HELP: Final = f"""Check every byte of the data directory DIR, and rehearse a start.

Each fault is named with its file, its offset, the bytes that should be there and those that are. A torn tail and a file
that a crash left unfinished are named, too, but they are no damage.

Nothing is changed and nothing is locked, so a node may run meanwhile. Of its last segment the check sees what a crash
at that moment would leave. The rehearsal needs as much memory as the node.

{EXIT_CODES}
"""


@click.command(help=_HELP)
@click.argument("directory", metavar="DIR")
@offline_options
def command(directory: str, offline: Offline) -> int:
    """Verify, and report."""

    def work() -> int:
        from haptera.node import verify
        from haptera.storage import OsFileSystem

        found = verify(OsFileSystem(), offline.config(directory), offline.unlock)
        if offline.as_json:
            output.json_line(_fields(found))
        else:
            for text in _lines(found):
                output.line(output.shown(text))
        if found.start.error is not None:
            return exit_code(found.start.error)
        return DONE if found.sound else DAMAGED

    return offline.run(work)


def _lines(found: Verification) -> list[str]:
    check, findings = found.check, found.check.findings
    node = check.node_id.hex() or "unknown"
    entries = sum(segment.records for segment in check.segments)
    size = sum(segment.size for segment in check.segments) + sum(snapshot.size for snapshot in check.snapshots)
    counts = ", ".join(
        (
            output.counted(len(check.segments), "segment"),
            output.counted(len(check.snapshots), "snapshot"),
            output.counted(entries, "entry", "entries"),
        )
    )
    lines = [
        f"{check.path}: node {node}, {counts}, {size:,} bytes",
        *(_line(finding) for finding in findings),
    ]
    if findings.omitted:
        lines.append(f"{output.counted(findings.omitted, 'more finding')}")
    lines.append("nothing is damaged" if not findings.damaged else "the directory is damaged")
    lines.append(_told(found.start))
    return lines


def _line(finding: Finding) -> str:
    place = f"{finding.file} at byte {finding.offset}"
    return f"{KINDS[finding.kind]}: {place}: expected {finding.expected}, found {finding.actual}"


def _told(start: Start) -> str:
    if start.error is not None:
        return f"a start would refuse it: {start.error}"
    cut = f" after it has cut {start.torn_bytes} bytes off {start.torn_file}" if start.torn_bytes else ""
    return f"a start would open it{cut}: revision {start.revision}, {output.counted(start.keys, 'key')}"


def _fields(found: Verification) -> dict[str, Any]:
    check, start = found.check, found.start
    return {
        "directory": check.path,
        "node_id": check.node_id.hex() or None,
        "sound": found.sound,
        "damaged": check.findings.damaged,
        "findings": [
            {
                "kind": finding.kind,
                "file": finding.file,
                "offset": finding.offset,
                "expected": finding.expected,
                "actual": finding.actual,
            }
            for finding in check.findings
        ],
        "findings_omitted": check.findings.omitted,
        "segments": [
            {
                "number": segment.number,
                "file": segment.path,
                "bytes": segment.size,
                "entries": segment.records,
                "sealed": segment.sealed,
                "whole": segment.whole,
            }
            for segment in check.segments
        ],
        "snapshots": [
            {
                "index": snapshot.index,
                "file": snapshot.path,
                "bytes": snapshot.size,
                "revision": snapshot.revision,
                "whole": snapshot.whole,
            }
            for snapshot in check.snapshots
        ],
        "start": _start_fields(start),
    }


def _start_fields(start: Start) -> dict[str, Any]:
    if start.error is not None:
        return {"opens": False, "reason": str(start.error), "exit_code": exit_code(start.error)}
    return {
        "opens": True,
        "revision": start.revision,
        "index": start.index,
        "keys": start.keys,
        "torn_bytes": start.torn_bytes,
        "torn_file": start.torn_file,
    }
