"""``haptera backup verify``"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import click

from haptera.cli import output
from haptera.cli.backup_source import open_backup
from haptera.cli.exit_codes import DAMAGED, DONE, listed_offline
from haptera.cli.offline import Offline, offline_options
from haptera.cli.progress_option import progress_option

if TYPE_CHECKING:
    from haptera.node import Start
    from haptera.storage import Manifest

_HELP: Final = f"""Check every byte of the backup in FILE, and rehearse a start from it.

The state is rebuilt as a restore would do it, in memory alone: no space on the disk is needed. Damage is named with its
offset. The master key of the node that made the backup is needed.

{listed_offline({DONE: "the backup is whole", DAMAGED: "it is damaged, or no backup"})}
"""


@click.command(help=_HELP)
@click.argument("file", metavar="FILE")
@progress_option
@offline_options
def command(file: str, no_progress: bool, offline: Offline) -> int:
    """Verify, and report."""
    if file == "-":
        raise click.UsageError("a backup is read twice to be verified, and standard input only once: name a file")

    def work() -> int:
        from haptera.node import verify_backup

        with open_backup(file, offline) as source, source.progress("verifying", wanted=not no_progress) as update:
            assert source.file is not None
            start = verify_backup(source.file, offline.config(file), source.reader, update)
            _show(file, source.reader.size, source.reader.manifest, start, offline)
        return DONE

    return offline.run(file, work)


def _show(file: str, size: int, manifest: Manifest, start: Start, offline: Offline) -> None:
    made = datetime.fromtimestamp(manifest.time_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    if offline.as_json:
        output.json_line(
            {
                "file": file,
                "bytes": size,
                "node_id": manifest.node_id.hex(),
                "version": manifest.version,
                "time": made,
                "revision": start.revision,
                "index": start.index,
                "keys": start.keys,
                "files": len(manifest.files),
            }
        )
        return
    keys = output.counted(start.keys, "key")
    output.line(
        output.shown(
            f"{file}: whole, {size} bytes, made {made} by node {manifest.node_id.hex()}; revision {start.revision}, "
            f"{output.counted(start.index, 'entry', 'entries')}, {keys}"
        )
    )
