"""``haptera count``"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from haptera.cli.client_command import Client, Span, client_options, range_options
from haptera.cli.exit_codes import DONE

if TYPE_CHECKING:
    from haptera.client import Database


@click.command()
@range_options
@client_options()
def command(span: Span, client: Client) -> int:
    """Write the number of keys: all of them, or the keys in a range (of several options all must hold)."""

    async def run(db: Database) -> int:
        count = await db.count(**span)
        client.show({"count": count}, str(count))
        return DONE

    return client.run(run)
