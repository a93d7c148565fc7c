"""``haptera maintenance``"""

from __future__ import annotations

from typing import Final

import click

from haptera.cli.groups import ClientGroup

#: The commands of the group, each with its line in the help.
COMMANDS: Final = {
    "on": "Refuse changes, and say why.",
    "off": "Take changes again.",
    "status": "Show whether changes are refused, and why.",
}


@click.group(
    cls=ClientGroup,
    package="haptera.cli.maintenance",
    commands_of=COMMANDS,
    modules={"on": "begin", "off": "end", "status": "show_maintenance"},
)
def command() -> None:
    """Close a store to changes for a while, and open it again.

    During maintenance each change of keys and leases is refused (MAINTENANCE_MODE), with the reason, and the command
    that makes it ends with 5. Reads, watches, the renewal of leases and changes of users, roles and tokens go on; keys
    expire and leases end at their time. It survives a restart of the node.

    All three need the permission admin; `haptera status` shows to every user whether there is maintenance.
    """
