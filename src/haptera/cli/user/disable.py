"""``haptera user disable``"""

from __future__ import annotations

import click

from haptera.cli.administration import change, user_argument
from haptera.cli.client_command import Client, client_options


@click.command()
@click.argument("name", callback=user_argument)
@client_options()
def command(name: str, client: Client) -> int:
    """Let the user NAME do nothing any more. It keeps its roles and its password.

    Exit code 1: there is no such user. Exit code 4: it is the last administrator.
    """
    return change(client, lambda admin: admin.disable_user(name), "disabled", {"user": name})
