"""``haptera clear``"""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

import click

from haptera.cli import output
from haptera.cli.client_command import Client, client_options, fence_option
from haptera.cli.exit_codes import DONE, NO
from haptera.cli.key_names import KEY

if TYPE_CHECKING:
    from haptera.client import Database


@click.command()
@click.option("--prefix", type=KEY, metavar="TEXT", help="The keys that begin with this.")
@click.option("--all", "everything", is_flag=True, help="Every key of the store.")
@click.option("--yes", is_flag=True, help="Ask nothing.")
@fence_option
@client_options()
def command(prefix: str | None, everything: bool, yes: bool, fence: int | None, client: Client) -> int:
    """Delete all keys of a range in one step, and write how many there were.

    Give --prefix or --all. On a terminal the command first says how many keys it would delete, and asks.
    Exit code 1: the answer was no.
    """
    if bool(prefix) == everything:
        raise click.UsageError("give either --prefix TEXT or --all")
    chosen = prefix or ""
    if not yes and sys.stdin.isatty() and sys.stderr.isatty():
        count, code = _count(client, chosen)
        if code != DONE:
            return code
        keys = output.counted(count, "key") + (f" that begin with {output.shown(repr(prefix))}" if prefix else "")
        # Older versions of click write the space behind the question to standard output, which is the result's.
        with redirect_stdout(sys.stderr):
            wanted = click.confirm(f"Delete {keys}?", err=True)
        if not wanted:
            return NO

    async def run(db: Database) -> int:
        deleted = await db.clear(prefix=chosen, fence=fence)
        client.show({"deleted": deleted}, str(deleted))
        return DONE

    return client.run(run, change=True)


def _count(client: Client, prefix: str) -> tuple[int, int]:
    """How many keys there are, and the exit code of asking. The question is put outside of the event loop, so that
    Ctrl-C ends it.
    """
    counts: list[int] = []

    async def run(db: Database) -> int:
        counts.append(await db.count(prefix=prefix or None))
        return DONE

    code = client.run(run)
    return sum(counts), code
