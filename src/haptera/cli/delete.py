"""``haptera del``"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from haptera.cli.client_command import Client, client_options, fence_option
from haptera.cli.exit_codes import DONE, NO
from haptera.cli.key_names import KEY
from haptera.key_rules import VERSION_MAX

if TYPE_CHECKING:
    from haptera.client import Database


@click.command()
@click.argument("keys", nargs=-1, required=True, type=KEY, metavar="KEY...")
@click.option(
    "--if-version", type=click.IntRange(0, VERSION_MAX), metavar="N", help="Only if the one KEY has this version."
)
@fence_option
@client_options()
def command(keys: tuple[str, ...], if_version: int | None, fence: int | None, client: Client) -> int:
    """Delete each KEY, all at once, and write how many there were.

    Exit code 1: none of them existed, or the condition did not hold.
    """
    if if_version is not None and len(keys) > 1:
        raise click.UsageError("--if-version goes with one KEY")

    async def run(db: Database) -> int:
        if len(keys) == 1:
            count = int(await db.delete(keys[0], if_version=if_version, fence=fence))
        else:
            count = await db.delete_many(keys, fence=fence)
        client.show({"deleted": count}, str(count))
        return DONE if count else NO

    return client.run(run, change=True)
