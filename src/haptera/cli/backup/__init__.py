"""``haptera backup``"""

from __future__ import annotations

from typing import Final

import click

from haptera.cli.groups import ClientGroup

#: The commands of the group, each with its line in the help.
COMMANDS: Final = {
    "create": "Write a backup of a store to a file.",
    "verify": "Check every byte of a backup, and rehearse a start from it.",
}

#: Commands whose module has another name.
MODULES: Final = {"verify": "verify_backup"}


@click.group(cls=ClientGroup, package="haptera.cli.backup", commands_of=COMMANDS, modules=MODULES)
def command() -> None:
    """Make backups of a store, and verify them.

    A backup is the whole store at one revision, encrypted as it is on the node's disk. `haptera restore` makes a data
    directory of it, with the node's master key. docs/operations.md has the routine.
    """
