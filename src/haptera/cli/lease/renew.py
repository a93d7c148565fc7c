"""``haptera lease renew``"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from haptera.cli.client_command import Client, client_options
from haptera.cli.exit_codes import DONE, NO
from haptera.key_rules import VERSION_MAX

if TYPE_CHECKING:
    from haptera.client import Database


@click.command()
@click.argument("leases", nargs=-1, required=True, type=click.IntRange(1, VERSION_MAX), metavar="ID...")
@client_options()
def command(leases: tuple[int, ...], client: Client) -> int:
    """Give each lease its whole time again.

    Writes a line for each: its id, tab, and the seconds that it goes on without another renewal, or ended. With --json
    the field ttl is null for one that has ended. Exit code 1: one of them has ended.
    """

    async def run(db: Database) -> int:
        times = await db.renew_leases(leases)
        for lease, seconds in zip(leases, times, strict=True):
            client.show({"lease": lease, "ttl": seconds}, f"{lease}\t{'ended' if seconds is None else f'{seconds:g}'}")
        return NO if None in times else DONE

    return client.run(run)
