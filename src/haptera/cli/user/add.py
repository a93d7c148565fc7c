"""``haptera user add``"""

from __future__ import annotations

import click

from haptera.cli.administration import change, user_argument
from haptera.cli.client_command import Client, client_options
from haptera.cli.new_passwords import new_password, password_option


@click.command()
@click.argument("name", callback=user_argument)
@click.option("--role", "roles", multiple=True, metavar="ROLE", help="A role that it has; may be given several times.")
@click.option("--no-password", is_flag=True, help="No password: a certificate, or the like, lets it in.")
@password_option
@client_options()
def command(name: str, roles: tuple[str, ...], no_password: bool, new_password_file: str | None, client: Client) -> int:
    """Add the user NAME.

    Its password is asked for twice, unless a file, standard input or HAPTERA_NEW_PASSWORD has it: at least 12
    characters, 5 different ones, without the name in it. It does not leave this command. Exit code 1: there is such a
    user, or no such role.
    """
    if no_password and new_password_file is not None:
        raise click.UsageError("--no-password and --new-password-file exclude each other")
    password = None if no_password else new_password(new_password_file, name)
    return change(client, lambda admin: admin.add_user(name, password, roles=roles), "added", {"user": name})
