"""``haptera user show``"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from haptera.cli.administration import user_argument
from haptera.cli.client_command import Client, client_options
from haptera.cli.exit_codes import DONE
from haptera.cli.user.list_users import show_users, user_fields

if TYPE_CHECKING:
    from haptera.client import Database


@click.command()
@click.argument("name", callback=user_argument)
@client_options()
def command(name: str, client: Client) -> int:
    """Show the user NAME, as `haptera user list` does.

    Exit code 1: there is no such user.
    """

    async def run(db: Database) -> int:
        show_users(client, [user_fields(await db.admin.user(name))])
        return DONE

    return client.run(run)
