"""``haptera restore``"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import click

from haptera.cli import output
from haptera.cli.backup_source import open_backup
from haptera.cli.exit_codes import DAMAGED, DONE, IN_USE, USAGE, listed_offline
from haptera.cli.offline import ArchiveOption, Offline, archive_options, offline_options
from haptera.cli.progress_option import progress_option

if TYPE_CHECKING:
    from haptera.node import Restored

_HELP: Final = f"""Make the data directory DIR of the backup in FILE; - is standard input.

DIR must not exist, or be empty. It becomes a new node with the same keys, values and versions. It opens only when every
byte of the backup was checked, all is on the disk and a start was rehearsed. Its first start raises the revision above
all that were given since the backup.

The master key of the node that made the backup is needed. Of a node that made its own, it is in the file master.key of
its data directory: give a copy of it with --master-key-file, here and to the new node.

With --archive-dir the store goes on behind the backup to the end of the archived segments of that node. `haptera pitr
restore` ends it at any revision or time before that. If the master key was changed after the backup, give the key of
the backup with --master-key-file and each later one with --archive-master-key-file. DIR is under the former.

{
    listed_offline(
        {
            DONE: "done",
            USAGE: "usage, FILE cannot be read, or DIR is not empty",
            IN_USE: "another process makes DIR",
            DAMAGED: "the backup, or the archive, is damaged or none",
        }
    )
}
"""


@click.command(help=_HELP)
@click.argument("file", metavar="FILE")
@click.option("--data-dir", required=True, metavar="DIR", help="The data directory to make.")
@archive_options
@progress_option
@offline_options
def command(file: str, data_dir: str, archive: ArchiveOption, no_progress: bool, offline: Offline) -> int:
    """Restore, and report."""

    def work() -> int:
        from haptera.node import restore_backup
        from haptera.storage import OsFileSystem

        started = time.monotonic()
        with open_backup(file, offline) as source, source.progress("restoring", wanted=not no_progress) as update:
            archived = source.archived(archive.find())
            made = restore_backup(OsFileSystem(), offline.config(data_dir), source.reader, archived, update)
        _show(data_dir, made, time.monotonic() - started, offline)
        return DONE

    return offline.run(file, work)


def _show(data_dir: str, made: Restored, seconds: float, offline: Offline) -> None:
    if offline.as_json:
        output.json_line(
            {
                "data_dir": data_dir,
                "node_id": made.node_id.hex(),
                "revision": made.revision,
                "index": made.index,
                "keys": made.keys,
                "seconds": round(seconds, 3),
            }
        )
        return
    keys = output.counted(made.keys, "key")
    output.line(
        output.shown(
            f"{data_dir}: node {made.node_id.hex()}, revision {made.revision}, index {made.index}, {keys} in "
            f"{seconds:.1f} s"
        )
    )
