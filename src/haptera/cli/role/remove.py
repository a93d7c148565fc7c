"""``haptera role remove``"""

from __future__ import annotations

import click

from haptera.cli.administration import change
from haptera.cli.client_command import Client, client_options


@click.command()
@click.argument("name")
@client_options()
def command(name: str, client: Client) -> int:
    """Remove the role NAME. Users, tokens and roles that have it lose it.

    Exit code 1: there is no such role. Exit code 4: it is admin, or the last administrator is one by it.
    """
    return change(client, lambda admin: admin.remove_role(name), "removed", {"role": name})
