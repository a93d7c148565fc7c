"""``haptera lease grant``"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from haptera.cli.client_command import Client, client_options
from haptera.cli.exit_codes import DONE
from haptera.cli.numbers import LEASE_TTL

if TYPE_CHECKING:
    from haptera.client import Database


@click.command()
@click.argument("seconds", type=LEASE_TTL)
@client_options()
def command(seconds: float, client: Client) -> int:
    """Grant a lease that goes on for SECONDS without a renewal, and write its id."""

    async def run(db: Database) -> int:
        lease = await db.grant_lease(seconds)
        client.show({"lease": lease, "ttl": seconds}, str(lease))
        return DONE

    return client.run(run, change=True)
