"""``haptera storage inspect``"""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import click

from haptera.cli import output
from haptera.cli.exit_codes import DAMAGED, DONE, listed_offline
from haptera.cli.offline import Offline, offline_options

if TYPE_CHECKING:
    from haptera.storage import Contents

_HELP: Final = f"""Show what the data directory DIR holds.

That is its identity and format, the ids of its data keys, its segments and its snapshots, with their sizes, indexes and
times. It reads headers alone, so it is quick, and `haptera storage verify` says whether the rest is whole. Nothing is
changed and nothing is locked. Without the master key it shows what stands in the clear, and ends with 12.

{listed_offline({DONE: "what it holds is shown", DAMAGED: "a file that identifies it, or its keys, is damaged"})}
"""


@click.command(help=_HELP)
@click.argument("directory", metavar="DIR")
@offline_options
def command(directory: str, offline: Offline) -> int:
    """Look, and show."""

    def work() -> int:
        from haptera.storage import OsFileSystem, look_into

        found = look_into(OsFileSystem(), directory, offline.unlock)
        if offline.as_json:
            output.json_line(_fields(found))
        else:
            for text in _lines(found):
                output.line(output.shown(text))
        if found.refusal is not None:
            output.flush()  # the result, before the error
            raise found.refusal
        return DONE

    return offline.run(directory, work)


def _lines(found: Contents) -> list[str]:
    from haptera.node import shown_time
    from haptera.storage import segment_name

    keys = ", ".join(found.keys) or "none that can be read"
    lines = [f"{found.path}: node {found.node_id or 'unknown'}, format {found.format}", f"data keys: {keys}"]
    for segment in found.segments:
        name = f"{_name(found, segment.file)}: {segment.bytes:,} bytes"
        if segment.trouble:
            lines.append(f"{name}, {segment.trouble}")
        elif not segment.first_time_ms:
            lines.append(f"{name}, {segment.state}, from index {segment.first_index}, key {segment.key_id}")
        else:
            indexes = f"indexes {segment.first_index} to {segment.last_index}"
            times = f"{shown_time(segment.first_time_ms)} to {shown_time(segment.last_time_ms)}"
            lines.append(f"{name}, {segment.state}, {indexes}, {times}, key {segment.key_id}, {segment.durability}")
    for snapshot in found.snapshots:
        name = f"{_name(found, snapshot.path)}: {snapshot.size_bytes:,} bytes, index {snapshot.index}"
        if snapshot.point is None:
            lines.append(f"{name}, its header is damaged")
        else:
            behind = f"log/{segment_name(snapshot.point.next_segment)} goes on behind it"
            lines.append(f"{name}, revision {snapshot.revision}, {shown_time(snapshot.point.time_ms)}, {behind}")
    return lines + found.troubles


def _name(found: Contents, file: str) -> str:
    """The name of a file within the directory."""
    return os.path.relpath(file, found.path)


def _fields(found: Contents) -> dict[str, Any]:
    return {
        "directory": found.path,
        "node_id": found.node_id or None,
        "format": found.format,
        "keys": found.keys,
        "segments": [asdict(segment) for segment in found.segments],
        "snapshots": [
            {
                "file": snapshot.path,
                "bytes": snapshot.size_bytes,
                "index": snapshot.index,
                "revision": snapshot.revision,
                "time_ms": None if snapshot.point is None else snapshot.point.time_ms,
                "next_segment": None if snapshot.point is None else snapshot.point.next_segment,
            }
            for snapshot in found.snapshots
        ],
        "troubles": found.troubles,
    }
