"""``haptera ttl``"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from haptera.cli.client_command import Client, client_options
from haptera.cli.exit_codes import DONE
from haptera.cli.key_names import KEY

if TYPE_CHECKING:
    from haptera.client import Database


@click.command()
@click.argument("key", type=KEY)
@client_options()
def command(key: str, client: Client) -> int:
    """Write how many seconds KEY has still to live, or none if it does not expire.

    Exit code 1: there is no KEY.
    """

    async def run(db: Database) -> int:
        left = await db.ttl(key)
        client.show({"key": key, "ttl": left}, "none" if left is None else str(left))
        return DONE

    return client.run(run)
