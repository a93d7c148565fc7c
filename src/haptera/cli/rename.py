"""``haptera rename``"""

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
@click.argument("new_key", type=KEY)
@click.option("--if-absent", is_flag=True, help="Only if there is no NEW_KEY.")
@fence_option
@client_options()
def command(key: str, new_key: str, if_absent: bool, fence: int | None, client: Client) -> int:
    """Move the value of KEY to NEW_KEY in one step, and write its new version.

    An entry that NEW_KEY has already is replaced, unless --if-absent is given. Exit code 1: there is no KEY, or with
    --if-absent there is a NEW_KEY.
    """

    async def run(db: Database) -> int:
        version = await db.rename(key, new_key, if_absent=if_absent, fence=fence)
        client.show({"key": new_key, "version": version}, str(version))
        return DONE

    return client.run(run, change=True)
