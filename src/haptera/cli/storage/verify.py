"""``haptera storage verify``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from haptera.cli import output
from haptera.cli.exit_codes import DAMAGED, DONE, OUTDATED, listed_offline
from haptera.cli.offline import Offline, exit_code, finding_line, offline_options
from haptera.cli.remedies import remedy, salvaged
from haptera.errors import MissingKey, NewerFormat, WrongKey

if TYPE_CHECKING:
    from haptera.node import Start, Verification

_HELP: Final = f"""Check every byte of the data directory DIR, and rehearse a start.

Each fault is named with its file, its offset, the bytes that should be there and those that are. A torn tail and a file
that a crash left unfinished are named, too, but they are no damage. Without the master key nothing is checked.

Nothing is changed and nothing is locked, so a node may run meanwhile. Of its last segment the check sees what a crash
at that moment would leave. The rehearsal needs as much memory as the node.

{
    listed_offline(
        {
            DONE: "nothing is damaged, and a start would open it",
            DAMAGED: "something is damaged",
            OUTDATED: "its log is an older copy",
        }
    )
}
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
        if isinstance(found.check.refusal, MissingKey | WrongKey | NewerFormat):
            raise found.check.refusal  # whether it is damaged is not known
        if offline.as_json:
            output.json_line(_fields(found))
        else:
            for text in _lines(found):
                output.line(output.shown(text))
        if found.start.error is not None:
            return exit_code(found.start.error)
        return DONE if found.sound else DAMAGED

    return offline.run(directory, work)


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
        *(finding_line(finding) for finding in findings),
    ]
    if findings.omitted:
        lines.append(f"{output.counted(findings.omitted, 'more finding')}")
    lines.append("nothing is damaged" if not findings.damaged else "the directory is damaged")
    lines.append(_told(found.start))
    if not found.sound:
        lines.append(_next_step(found))
    return lines


def _told(start: Start) -> str:
    if start.error is not None:
        return f"a start would refuse it: {start.error}"
    cut = f" after it has cut {start.torn_bytes} bytes off {start.torn_file}" if start.torn_bytes else ""
    gap = "; it would leave a gap behind that, because changes may be lost" if start.leaves_gap else ""
    return f"a start would open it{cut}: revision {start.revision}, {output.counted(start.keys, 'key')}{gap}"


def _next_step(found: Verification) -> str:
    path, error = found.check.path, found.start.error
    if error is None:
        return "the store is whole, and a part of its past is not: make a backup; retention removes the damaged files"
    return salvaged(path) if exit_code(error) == DAMAGED else remedy(error, path)


def _fields(found: Verification) -> dict[str, Any]:
    check, start = found.check, found.start
    return {
        "directory": check.path,
        "node_id": check.node_id.hex() or None,
        "sound": found.sound,
        "damaged": check.findings.damaged,
        "help": "" if found.sound else _next_step(found),
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
        "leaves_gap": start.leaves_gap,
    }
