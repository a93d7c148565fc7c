"""``haptera user withdraw``"""

from __future__ import annotations

import click

from haptera.cli.administration import change, user_argument
from haptera.cli.client_command import Client, client_options


@click.command()
@click.argument("name", metavar="USER", callback=user_argument)
@click.argument("role")
@client_options()
def command(name: str, role: str, client: Client) -> int:
    """Take ROLE from USER.

    Exit code 1: there is no such user, or no such role. Exit code 4: it is the last administrator, by this role.
    """
    fields = {"user": name, "role": role}
    return change(client, lambda admin: admin.withdraw_role(name, role), "withdrawn", fields)
