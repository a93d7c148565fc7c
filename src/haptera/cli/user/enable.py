"""``haptera user enable``"""

from __future__ import annotations

import click

from haptera.cli.administration import change, user_argument
from haptera.cli.client_command import Client, client_options


@click.command()
@click.argument("name", callback=user_argument)
@client_options()
def command(name: str, client: Client) -> int:
    """Let the user NAME, which was disabled, do again what its roles say.

    Exit code 1: there is no such user.
    """
    return change(client, lambda admin: admin.enable_user(name), "enabled", {"user": name})
