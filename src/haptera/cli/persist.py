"""``haptera persist``"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from haptera.cli.client_command import Client, client_options, fence_option
from haptera.cli.exit_codes import DONE
from haptera.cli.key_names import KEY

if TYPE_CHECKING:
    from haptera.client import Database


@click.command()
@click.argument("key", type=KEY)
@fence_option
@client_options()
def command(key: str, fence: int | None, client: Client) -> int:
    """Have KEY not expire any more, and write its new version. Its value stays.

    Exit code 1: there is no KEY.
    """

    async def run(db: Database) -> int:
        version = await db.persist(key, fence=fence)
        client.show({"key": key, "version": version}, str(version))
        return DONE

    return client.run(run, change=True)
