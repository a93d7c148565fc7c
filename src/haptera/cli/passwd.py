"""``haptera passwd``"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from haptera.access_rules import TOKEN_PREFIX, is_user_name
from haptera.cli.administration import change, user_argument
from haptera.cli.client_command import Client, client_options
from haptera.cli.exit_codes import DONE
from haptera.cli.new_passwords import new_password, password_option

if TYPE_CHECKING:
    from haptera.client import Database


@click.command()
@click.argument("name", metavar="[USER]", required=False, callback=user_argument)
@password_option
@client_options()
def command(name: str | None, new_password_file: str | None, client: Client) -> int:
    """Give USER, or this command's own user, another password.

    A user that has come in by its password may change its own; another's needs the permission user_admin.

    The password is asked for twice, unless a file, standard input or HAPTERA_NEW_PASSWORD has it: at least 12
    characters, 5 different ones, without the name in it. It does not leave this command. Exit code 1: there is no such
    user.
    """
    if name is None:
        found: list[str] = []

        async def ask(db: Database) -> int:
            found.append((await db.whoami()).user)
            return DONE

        code = client.run(ask)
        if not found:
            return code
        if found[0].startswith(TOKEN_PREFIX):
            raise click.UsageError(
                f"this command comes in as {found[0]}, whose secret stays as it is: `haptera token create` makes "
                "another token; or name a USER"
            )
        if not is_user_name(found[0]):
            raise click.UsageError(
                f"this command comes in as {found[0] or 'no user'}, which has no password: name a USER"
            )
        name = found[0]
    user, password = name, new_password(new_password_file, name)
    return change(client, lambda admin: admin.set_password(user, password), "changed", {"user": user})
