"""``haptera whoami``"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from haptera.cli import output
from haptera.cli.administration import joined
from haptera.cli.client_command import Client, client_options
from haptera.cli.exit_codes import DONE

if TYPE_CHECKING:
    from haptera.client import Database


@click.command()
@client_options()
def command(client: Client) -> int:
    """Show the user that the node takes this command for, its roles, and the mechanism that has proved it.

    The user is empty where the node asks for no proof. secure says whether the connection is inside TLS.
    """

    async def run(db: Database) -> int:
        who = await db.whoami()
        if client.as_json:
            fields = {"user": who.user, "roles": who.roles, "mechanism": who.mechanism, "secure": who.secure}
            output.json_line(fields)
            return DONE
        rows = [
            ["user", who.user or "-"],
            ["roles", joined(who.roles)],
            ["mechanism", who.mechanism or "-"],
            ["secure", "yes" if who.secure else "no"],
        ]
        if output.as_tables():
            output.table(["", "value"], rows)
        else:
            for name, value in rows:
                output.line(f"{name}: {value}")
        return DONE

    return client.run(run)
