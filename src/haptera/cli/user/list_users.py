"""``haptera user list``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from haptera.cli.administration import joined, show_rows
from haptera.cli.client_command import Client, client_options
from haptera.cli.exit_codes import DONE

if TYPE_CHECKING:
    from haptera.client import Database, User

#: The fields of such a line.
COLUMNS: Final = ("user", "state", "password", "roles")


@click.command()
@client_options()
def command(client: Client) -> int:
    """List the users in the order of their names.

    A line for each: its name, tab, enabled or disabled, tab, password or none, tab, its roles with commas between them.
    """

    async def run(db: Database) -> int:
        show_rows(client, COLUMNS, [user_fields(user) async for user in db.admin.users()], user_cells)
        return DONE

    return client.run(run)


def user_fields(user: User) -> dict[str, Any]:
    """A user as JSON has it."""
    return {"user": user.name, "disabled": user.disabled, "password": user.has_verifier, "roles": user.roles}


def user_cells(user: dict[str, Any]) -> list[str]:
    """A user as a line of a list has it."""
    state = "disabled" if user["disabled"] else "enabled"
    return [user["user"], state, "password" if user["password"] else "none", joined(user["roles"])]
