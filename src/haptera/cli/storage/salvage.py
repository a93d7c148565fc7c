"""``haptera storage salvage``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from haptera.cli import output
from haptera.cli.exit_codes import DAMAGED, DONE, IN_USE, NO, USAGE, listed_offline
from haptera.cli.offline import Offline, offline_options, target_option

if TYPE_CHECKING:
    from haptera.node import Lost, Salvaged

_HELP: Final = f"""Make a new data directory with everything that the damaged DIR still gives.

It holds the newest state without a hole: all entries up to the first fault, or, where a whole snapshot stands behind
the fault, that snapshot and all entries up to the next fault. Everything behind that is lost, and is listed: entries
without the ones before them would make a state that never was.

DIR stays as it is. TARGET must not exist, or be empty. It opens only when it is whole and was read back. Its
first start raises the revision above all that were given.

{
    listed_offline(
        {
            DONE: "done, and no entry is lost",
            NO: "done, and entries are lost",
            USAGE: "usage, there is no data directory, or TARGET is not empty",
            IN_USE: "another process makes TARGET",
            DAMAGED: "nothing whole is there to begin with, and TARGET is not made",
        }
    )
}
"""


@click.command(help=_HELP)
@click.argument("directory", metavar="DIR")
@target_option
@offline_options
def command(directory: str, target: str, offline: Offline) -> int:
    """Salvage, and report."""

    def work() -> int:
        from haptera.node import salvage, shown_time
        from haptera.storage import OsFileSystem

        found = salvage(OsFileSystem(), offline.config(directory), offline.target(target), offline.unlock)
        if offline.as_json:
            output.json_line(_fields(found, target))
            return NO if found.lost else DONE
        state = f"revision {found.revision}, {output.counted(found.keys, 'key')}"
        output.line(output.shown(f"{target}: node {found.node_id.hex()}, {state}, {shown_time(found.time_ms)}"))
        output.line(output.shown(f"it holds {found.rule}"))
        for each in found.lost:
            output.line(output.shown(_line(each)))
        if not found.lost:
            output.line("no entry is lost")
        return NO if found.lost else DONE

    return offline.run(directory, work)


def _line(lost: Lost) -> str:
    from haptera.node import shown_time

    last = f"to {lost.last_index}" if lost.last_index else "on, as many as there were"
    until = f", until {shown_time(lost.until_ms)}" if lost.until_ms else ""
    return (
        f"lost: {lost.file} from byte {lost.offset}, {lost.bytes:,} bytes: the entries {lost.first_index} {last}{until}"
    )


def _fields(found: Salvaged, target: str) -> dict[str, Any]:
    return {
        "target": target,
        "node_id": found.node_id.hex(),
        "revision": found.revision,
        "index": found.index,
        "time_ms": found.time_ms,
        "keys": found.keys,
        "rule": found.rule,
        "lost": [
            {
                "file": each.file,
                "offset": each.offset,
                "bytes": each.bytes,
                "first_index": each.first_index or None,
                "last_index": each.last_index or None,
                "until_ms": each.until_ms or None,
            }
            for each in found.lost
        ],
    }
