"""``haptera role``"""

from __future__ import annotations

from typing import Final

import click

from haptera.cli.groups import ClientGroup

#: The commands of the group, each with its line in the help.
COMMANDS: Final = {
    "add": "Add a role.",
    "remove": "Remove a role.",
    "list": "List the roles.",
    "show": "Show a role with its grants.",
    "add-parent": "Give a role the grants of another one.",
    "remove-parent": "Take from a role the grants of another one.",
}


@click.group(
    cls=ClientGroup,
    package="haptera.cli.role",
    commands_of=COMMANDS,
    modules={"list": "list_roles", "add-parent": "add_parent", "remove-parent": "remove_parent"},
)
def command() -> None:
    """Add roles, and let them have the grants of others.

    A role has the grants that `haptera grant add` gives it, and those of its parents.
    """
