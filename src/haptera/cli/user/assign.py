"""``haptera user assign``"""

from __future__ import annotations

import click

from haptera.cli.administration import change, user_argument
from haptera.cli.client_command import Client, client_options


@click.command()
@click.argument("name", metavar="USER", callback=user_argument)
@click.argument("role")
@client_options()
def command(name: str, role: str, client: Client) -> int:
    """Give ROLE to USER.

    Exit code 1: there is no such user, or no such role.
    """
    fields = {"user": name, "role": role}
    return change(client, lambda admin: admin.assign_role(name, role), "assigned", fields)
