"""``haptera storage migrate``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from haptera.cli import output
from haptera.cli.exit_codes import DONE, IN_USE, NO, OUTDATED, listed_offline
from haptera.cli.offline import Offline, offline_options

if TYPE_CHECKING:
    from haptera.node import Migration

_HELP: Final = f"""Bring the data directory DIR to the newest format, as the start of a node does.

The keys are encrypted under the master key, or under one that is made beside the data. The log is read and checked; its
segments stay as they are. An interrupted migration goes on when it is begun again. Older versions refuse the directory
from then on.

With --check everything is tried in memory, and nothing is changed; the exit code is 1 where a migration is needed.

{
    listed_offline(
        {
            DONE: "it has the newest format",
            NO: "--check: a migration is needed",
            IN_USE: "the data directory is in use",
            OUTDATED: "its log is an older copy",
        }
    )
}
"""


@click.command(help=_HELP)
@click.argument("directory", metavar="DIR")
@click.option("--check", is_flag=True, help="Change nothing; say what would be done.")
@offline_options
def command(directory: str, check: bool, offline: Offline) -> int:
    """Migrate, and say what was done."""

    def work() -> int:
        from haptera.node import migrate
        from haptera.storage import OsFileSystem

        done = migrate(OsFileSystem(), offline.config(directory), check=check)
        if offline.as_json:
            fields = {
                "directory": directory,
                "from_format": done.from_format,
                "to_format": done.to_format,
                "needed": done.needed,
                "changed": done.needed and not check,
            }
            output.json_line(fields)
        else:
            output.line(output.shown(f"{directory}: {_told(done, check)}"))
        return NO if check and done.needed else DONE

    return offline.run(directory, work)


def _told(done: Migration, check: bool) -> str:
    if not done.needed:
        return f"it has the newest format, {done.to_format}"
    read = f"{output.counted(done.entries, 'entry', 'entries')} of its log were read"
    if check:
        return f"format {done.from_format} can be migrated to {done.to_format}; {read}"
    under = f"its keys are under the master key {done.keys.master_key.hex()}"
    return f"migrated from format {done.from_format} to {done.to_format}; {under}, and {read}"
