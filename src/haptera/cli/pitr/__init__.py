"""``haptera pitr``"""

from __future__ import annotations

from typing import Final

import click

from haptera.cli.groups import LazyGroup

#: The commands of the group, each with its line in the help.
COMMANDS: Final = {
    "inspect": "List the revisions and times that can be restored.",
    "restore": "Make a data directory of the state at a revision or a time.",
}


@click.group(cls=LazyGroup, package="haptera.cli.pitr", commands_of=COMMANDS, modules={})
def command() -> None:
    """Recover a store as it was at a moment.

    A data directory keeps snapshots and the log between them, so every revision and every time of its retained window
    can be restored, and not only those of the snapshots. These commands need no node, and change nothing in the
    directory.
    """
