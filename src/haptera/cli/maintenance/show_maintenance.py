"""``haptera maintenance status``"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from haptera.cli.client_command import Client, client_options
from haptera.cli.exit_codes import DONE
from haptera.cli.maintenance.shown import show

if TYPE_CHECKING:
    from haptera.client import Database


@click.command()
@client_options()
def command(client: Client) -> int:
    """Show whether changes are refused, why, and since when."""

    async def run(db: Database) -> int:
        show(client, await db.maintenance())
        return DONE

    return client.run(run)
