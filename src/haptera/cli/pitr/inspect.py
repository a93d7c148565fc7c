"""``haptera pitr inspect``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from haptera.cli import output
from haptera.cli.exit_codes import DAMAGED, DONE, listed_offline
from haptera.cli.offline import ArchiveOption, Offline, archive_options, finding_line, offline_options

if TYPE_CHECKING:
    from haptera.node import Reach

_HELP: Final = f"""List every range of revisions and times that can be restored from SOURCE.

SOURCE is a data directory, or the file of a backup. With --archive-dir the segments in the archive of the same node
are read as well. Where the master key was changed, --archive-master-key-file gives each that --master-key-file is not.

A range begins at a snapshot, or at the first entry, and reaches without a gap to its end. Without damage there is one.
Its last revision is found by rebuilding the state, which takes as long as a start. A store that was restored itself has
a gap in its revisions, which is left out.

{
    listed_offline(
        {
            DONE: "everything is whole",
            DAMAGED: "something is damaged: the ranges are what is left, and with none nothing can be restored",
        }
    )
}
"""


@click.command(help=_HELP)
@click.argument("source", metavar="SOURCE")
@archive_options
@offline_options
def command(source: str, archive: ArchiveOption, offline: Offline) -> int:
    """List the ranges."""

    def work() -> int:
        timeline = offline.timeline(source, archive)
        ranges = timeline.reach()
        damaged = timeline.check.findings.damaged
        if offline.as_json:
            output.json_line({"source": source, "damaged": damaged, "ranges": [_fields(each) for each in ranges]})
        else:
            for each in ranges:
                parts = f"{output.counted(each.snapshots, 'snapshot')}, {output.counted(each.segments, 'segment')}"
                output.line(f"{each}; indexes {each.first_index} to {each.last_index}; {parts}")
            if not ranges:
                output.line("no moment can be restored")
            for finding in timeline.check.findings if damaged else ():
                output.line(output.shown(finding_line(finding)))
        return DAMAGED if damaged or not ranges else DONE

    return offline.run(source, work)


def _fields(reach: Reach) -> dict[str, Any]:
    return {
        "first": _moment(reach.first_revision, reach.first_index, reach.first_time_ms),
        "last": _moment(reach.last_revision, reach.last_index, reach.last_time_ms),
        "snapshots": reach.snapshots,
        "segments": reach.segments,
        "broken": reach.broken,
        "gaps": [{"before": before, "behind": behind} for before, behind in reach.gaps],
    }


def _moment(revision: int, index: int, time_ms: int) -> dict[str, Any]:
    from haptera.node import shown_time

    return {"revision": revision, "index": index, "time_ms": time_ms, "time": shown_time(time_ms)}
