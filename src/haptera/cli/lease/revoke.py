"""``haptera lease revoke``"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from haptera.cli.client_command import Client, client_options
from haptera.cli.exit_codes import DONE
from haptera.key_rules import VERSION_MAX

if TYPE_CHECKING:
    from haptera.client import Database


@click.command()
@click.argument("lease", type=click.IntRange(1, VERSION_MAX), metavar="ID")
@client_options()
def command(lease: int, client: Client) -> int:
    """End a lease, delete the keys that belong to it, and write how many there were.

    Exit code 1: it has ended before.
    """

    async def run(db: Database) -> int:
        keys = await db.revoke_lease(lease)
        client.show({"deleted": keys}, str(keys))
        return DONE

    return client.run(run, change=True)
