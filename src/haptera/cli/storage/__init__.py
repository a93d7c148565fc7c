"""``haptera storage``"""

from __future__ import annotations

from typing import Final

import click

from haptera.cli.groups import LazyGroup

#: The commands of the group, each with its line in the help.
COMMANDS: Final = {
    "verify": "Check every byte of a data directory.",
    "inspect": "Show what a data directory holds.",
    "salvage": "Make a data directory of everything up to the damage.",
    "migrate": "Bring a data directory to the newest format.",
    "rotate-key": "Make a new data key, or change the master key.",
}


@click.group(cls=LazyGroup, package="haptera.cli.storage", commands_of=COMMANDS, modules={"rotate-key": "rotate_key"})
def command() -> None:
    """Check a data directory, look into it, save what is whole, change its keys.

    These commands need no node. But for migrate and rotate-key they change nothing in the directory.
    """
