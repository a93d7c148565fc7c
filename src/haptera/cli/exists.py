"""``haptera exists``"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from haptera.cli.client_command import Client, client_options
from haptera.cli.exit_codes import DONE, NO
from haptera.cli.key_names import KEY

if TYPE_CHECKING:
    from haptera.client import Database


@click.command()
@click.argument("key", type=KEY)
@client_options()
def command(key: str, client: Client) -> int:
    """Write whether there is a KEY: true or false. Exit code 1: there is none."""

    async def run(db: Database) -> int:
        found = await db.exists(key)
        client.show({"key": key, "exists": found}, "true" if found else "false")
        return DONE if found else NO

    return client.run(run)
