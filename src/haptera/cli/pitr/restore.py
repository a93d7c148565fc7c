"""``haptera pitr restore``"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import click

from haptera.cli import output
from haptera.cli.exit_codes import DONE, IN_USE, USAGE, listed_offline
from haptera.cli.offline import ArchiveOption, Offline, archive_options, offline_options, target_option

#: Unix seconds, with a fraction or without.
_SECONDS: Final = re.compile(r"\d{1,12}(\.\d{1,9})?", re.ASCII)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_HELP: Final = f"""Make a data directory of the store in SOURCE as it was at a revision or a time.

--to-revision N gives the store right after the change that made revision N. --to-time T gives it after the last change
whose time is not later than T: a time with its zone, such as 2026-11-28T14:00:00Z or 2026-11-28T15:00:00.250+01:00, or
the seconds since 1970. `haptera pitr inspect` lists what can be restored; what cannot is an error.

SOURCE is a data directory, on which a node may run, or the file of a backup; with --archive-dir the segments in the
archive of the same node are read as well, also those from before or after a change of the master key if
--archive-master-key-file gives the other one. SOURCE stays as it is. TARGET must not exist, or be empty. It gets a new
identity, and opens only when it is whole and was read back.

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


class Time(click.ParamType):  # type: ignore[type-arg]  # click 8.1 has no parameters
    """A moment, in Unix milliseconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).strip()
        if _SECONDS.fullmatch(text):
            return int(Decimal(text) * 1000)
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            self.fail(f"{text!r} is neither a time, such as 2026-11-28T14:00:00Z, nor seconds since 1970.", param, ctx)
        if moment.tzinfo is None:
            self.fail(f"{text!r} has no time zone; Z at its end means UTC, +01:00 an hour before it.", param, ctx)
        return (moment - _EPOCH) // timedelta(milliseconds=1)


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
