"""``haptera revert``"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from haptera.cli import output
from haptera.cli.client_command import Client, client_options, fence_option
from haptera.cli.exit_codes import DONE, NO
from haptera.cli.key_names import KEY
from haptera.key_rules import VERSION_MAX

if TYPE_CHECKING:
    from haptera.client import Database, Event


@click.command()
@click.argument("key", type=KEY)
@click.option(
    "--to-version", type=click.IntRange(1, VERSION_MAX), required=True, metavar="N", help="The version to go back to."
)
@fence_option
@client_options()
def command(key: str, to_version: int, fence: int | None, client: Client) -> int:
    """Give KEY the value that it had in version N, as a new version.

    A version in which it was deleted deletes it. The key must still be as the history shows it, so that a change
    that comes meanwhile is not overwritten. Writes the new version. Exit code 1: the node does not have version N
    any more, the key was changed meanwhile, or the lock of --fence is lost.
    """

    async def run(db: Database) -> int:
        wanted: Event | None = None
        last: Event | None = None
        async for last in db.history(key):
            if last.version == to_version:
                wanted = last
        if wanted is None or last is None:
            message = f"the node has no version {to_version} of {key!r}"
            output.error(message, {"message": message, "outcome": "not_applied"}, NO)
            return NO
        version = 0 if last.value is None else last.version
        if wanted.value is not None:
            revision = await db.set(key, wanted.value, if_version=version, fence=fence)
        elif last.value is not None:
            await db.delete(key, if_version=version, fence=fence)
            revision = db.revision
        else:
            revision = last.version
        client.show({"key": key, "version": revision}, str(revision))
        return DONE

    return client.run(run, change=True)
