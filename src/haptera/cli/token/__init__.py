"""``haptera token``"""

from __future__ import annotations

from typing import Final

import click

from haptera.cli.groups import ClientGroup

#: The commands of the group, each with its line in the help.
COMMANDS: Final = {
    "create": "Make a token, and write its secret once.",
    "revoke": "Revoke a token.",
    "list": "List the tokens.",
}


@click.group(cls=ClientGroup, package="haptera.cli.token", commands_of=COMMANDS, modules={"list": "list_tokens"})
def command() -> None:
    """Make tokens for programs, and revoke them.

    A token is a program's user with a random password, of which the node keeps a verifier alone.
    """
