"""``haptera role remove-parent``"""

from __future__ import annotations

import click

from haptera.cli.administration import change
from haptera.cli.client_command import Client, client_options


@click.command()
@click.argument("role")
@click.argument("parent")
@client_options()
def command(role: str, parent: str, client: Client) -> int:
    """Take from ROLE the grants of PARENT.

    Exit code 1: there is no such role, or no such parent.
    """
    fields = {"role": role, "parent": parent}
    return change(client, lambda admin: admin.remove_parent(role, parent), "removed", fields)
