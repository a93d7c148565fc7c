"""``haptera maintenance on``"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from haptera.cli.client_command import Client, client_options
from haptera.cli.exit_codes import DONE
from haptera.cli.maintenance.shown import show

if TYPE_CHECKING:
    from haptera.client import Database


@click.command()
@click.option("--reason", required=True, metavar="TEXT", help="Told to each caller whose change is refused.")
@client_options()
def command(reason: str, client: Client) -> int:
    """Refuse changes of keys and leases until `haptera maintenance off`, and say why.

    During maintenance it gives another reason.
    """

    async def run(db: Database) -> int:
        show(client, await db.begin_maintenance(reason))
        return DONE

    return client.run(run, change=True)
