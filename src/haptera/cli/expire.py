"""``haptera expire``"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from haptera.cli.client_command import Client, client_options, fence_option
from haptera.cli.exit_codes import DONE
from haptera.cli.key_names import KEY
from haptera.cli.numbers import TTL

if TYPE_CHECKING:
    from haptera.client import Database


@click.command()
@click.argument("key", type=KEY)
@click.argument("seconds", type=TTL)
@fence_option
@client_options()
def command(key: str, seconds: float, fence: int | None, client: Client) -> int:
    """Have KEY expire in SECONDS from now, and write its new version. Its value stays.

    Exit code 1: there is no KEY.
    """

    async def run(db: Database) -> int:
        version = await db.expire(key, seconds, fence=fence)
        client.show({"key": key, "version": version}, str(version))
        return DONE

    return client.run(run, change=True)
