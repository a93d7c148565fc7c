"""``haptera role list``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from haptera.cli.administration import joined, show_rows
from haptera.cli.client_command import Client, client_options
from haptera.cli.exit_codes import DONE

if TYPE_CHECKING:
    from haptera.client import Database


@click.command()
@client_options()
def command(client: Client) -> int:
    """List the roles in the order of their names.

    A line for each: its name, tab, on how many patterns it has a grant of its own, tab, its parents with commas between
    them.
    """

    async def run(db: Database) -> int:
        found = [
            {"role": role.name, "patterns": role.patterns, "parents": role.parents} async for role in db.admin.roles()
        ]
        show_rows(client, ["role", "patterns", "parents"], found, _cells)
        return DONE

    return client.run(run)


def _cells(role: dict[str, Any]) -> list[str]:
    return [role["role"], str(role["patterns"]), joined(role["parents"])]
