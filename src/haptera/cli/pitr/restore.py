"""``haptera pitr restore``"""

from __future__ import annotations

import time
from typing import Final

import click

from haptera.cli import output
from haptera.cli.exit_codes import DONE, IN_USE, USAGE, listed_offline
from haptera.cli.moments import Time
from haptera.cli.offline import ArchiveOption, Offline, archive_options, offline_options, target_option

_HELP: Final = f"""Make a data directory of the store in SOURCE as it was at a revision or a time.

--to-revision N gives the store right after the change that made revision N. --to-time T gives it after the last change
whose time is not later than T: a time with its zone, such as 2026-11-28T14:00:00Z or 2026-11-28T15:00:00.250+01:00, or
the seconds since 1970. `haptera pitr inspect` lists what can be restored; what cannot is an error.

SOURCE is a data directory, on which a node may run, or the file of a backup; with --archive-dir the segments in the
archive of the same node are read as well, also those from before or after a change of the master key if
--archive-master-key-file gives the other one. SOURCE stays as it is. TARGET must not exist, or be empty. It gets a new
identity, and opens only when it is whole and was read back. Its first start raises the revision above all that were
given.

{
    listed_offline(
        {
            DONE: "done",
            USAGE: "usage, the moment cannot be restored, or TARGET is not empty",
            IN_USE: "another process makes TARGET",
        }
    )
}
"""


@click.command(help=_HELP)
@click.argument("source", metavar="SOURCE")
@click.option("--to-revision", type=click.IntRange(0), metavar="N", help="The revision to restore.")
@click.option("--to-time", type=Time(), metavar="T", help="The time to restore.")
@target_option
@archive_options
@offline_options
def command(
    source: str, to_revision: int | None, to_time: int | None, target: str, archive: ArchiveOption, offline: Offline
) -> int:
    """Restore, and report."""
    if (to_revision is None) == (to_time is None):
        raise click.UsageError("give either --to-revision or --to-time")

    def work() -> int:
        from haptera.node import build_directory, shown_time
        from haptera.storage import OsFileSystem

        made = offline.target(target)
        timeline = offline.timeline(source, archive)
        if to_revision is not None:
            rebuilt = timeline.at_revision(to_revision)
        else:
            assert to_time is not None
            rebuilt = timeline.at_time(to_time, time.time_ns() // 1_000_000)
        machine = rebuilt.machine
        state = {
            "revision": machine.revision,
            "index": machine.index,
            "time_ms": machine.time_ms,
            "time": shown_time(machine.time_ms),
            "keys": len(machine.kv.entries),
        }
        del machine
        node_id = build_directory(OsFileSystem(), made, offline.unlock, rebuilt).hex()
        if offline.as_json:
            output.json_line({"target": target, "node_id": node_id, **state})
        else:
            keys = output.counted(int(str(state["keys"])), "key")
            line = f"{target}: node {node_id}, revision {state['revision']}, {keys}, last entry {state['time']}"
            output.line(output.shown(line))
        return DONE

    return offline.run(source, work)
