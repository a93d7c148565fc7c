"""``haptera role show``"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from haptera.cli import output
from haptera.cli.administration import joined, show_rows
from haptera.cli.client_command import Client, client_options
from haptera.cli.exit_codes import DONE

if TYPE_CHECKING:
    from haptera.client import Database


@click.command()
@click.argument("name")
@client_options()
def command(name: str, client: Client) -> int:
    """Show the grants of the role NAME, and its parents.

    A line for each pattern: the pattern, tab, its permissions with commas between them. A line for each parent: the
    word parent, tab, its name. With --json one document. Exit code 1: there is no such role.
    """

    async def run(db: Database) -> int:
        role = await db.admin.role(name)
        if client.as_json:
            output.json_line({"role": role.name, "parents": role.parents, "grants": role.grants})
            return DONE
        rows = [{"cells": [pattern, joined(permissions)]} for pattern, permissions in role.grants.items()]
        rows += [{"cells": ["parent", parent]} for parent in role.parents]
        show_rows(client, ["pattern", "permissions"], rows, lambda row: list(row["cells"]))
        return DONE

    return client.run(run)
