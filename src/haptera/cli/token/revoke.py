"""``haptera token revoke``"""

from __future__ import annotations

import click

from haptera.cli.administration import change
from haptera.cli.client_command import Client, client_options


@click.command()
@click.argument("name")
@client_options()
def command(name: str, client: Client) -> int:
    """Revoke the token NAME: from now on it is good for nothing.

    Exit code 1: there is no such token.
    """
    return change(client, lambda admin: admin.remove_token(name), "revoked", {"token": name})
