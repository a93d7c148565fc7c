"""``haptera user``"""

from __future__ import annotations

from typing import Final

import click

from haptera.cli.groups import ClientGroup

#: The commands of the group, each with its line in the help.
COMMANDS: Final = {
    "add": "Add a user.",
    "remove": "Remove a user.",
    "list": "List the users.",
    "show": "Show a user.",
    "assign": "Give a role to a user.",
    "withdraw": "Take a role from a user.",
    "quota": "Say how much a user may have.",
    "disable": "Let a user do nothing any more.",
    "enable": "Let a user that was disabled do again what its roles say.",
}


@click.group(cls=ClientGroup, package="haptera.cli.user", commands_of=COMMANDS, modules={"list": "list_users"})
def command() -> None:
    """Add users, and say what they may do by their roles.

    The role admin may do everything, and at least one user that can come in has it.
    """
