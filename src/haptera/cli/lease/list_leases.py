"""``haptera lease list``"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from haptera.cli import output
from haptera.cli.client_command import Client, client_options
from haptera.cli.exit_codes import DONE

if TYPE_CHECKING:
    from haptera.client import Database, LeaseInfo


@click.command()
@click.option("--limit", type=click.IntRange(0), metavar="N", help="The first N leases alone.")
@client_options()
def command(limit: int | None, client: Client) -> int:
    """List the leases in the order of their ids.

    A line for each: its id, tab, the seconds that it goes on without a renewal, tab, those that are left of them, tab,
    how many keys belong to it.
    """

    async def run(db: Database) -> int:
        found = [lease async for lease in db.leases(limit=limit)]
        if client.as_json:
            for lease in found:
                output.json_line(
                    {"lease": lease.id, "ttl": lease.ttl, "remaining": lease.remaining, "keys": lease.keys}
                )
        elif output.as_tables():
            output.table(["lease", "ttl", "remaining", "keys"], map(_cells, found))
        else:
            for lease in found:
                output.line("\t".join(_cells(lease)))
        return DONE

    return client.run(run)


def _cells(lease: LeaseInfo) -> list[str]:
    return [str(lease.id), f"{lease.ttl:g}", f"{lease.remaining:g}", str(lease.keys)]
