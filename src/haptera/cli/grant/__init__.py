"""``haptera grant``"""

from __future__ import annotations

from typing import Final

import click

from haptera.cli.groups import ClientGroup

#: The commands of the group, each with its line in the help.
COMMANDS: Final = {
    "add": "Let a role do more.",
    "remove": "Let a role do less.",
}


@click.group(
    cls=ClientGroup,
    package="haptera.cli.grant",
    commands_of=COMMANDS,
    modules={"add": "add_grant", "remove": "remove_grant"},
)
def command() -> None:
    """Let roles do something to keys, or no longer.

    The permissions of keys are read, write, delete, scan, watch and lease. The permissions of the node as a whole are
    admin, user_admin, backup, restore, metrics and cluster; their pattern is '*'. `haptera role show` lists the grants
    of a role.
    """
