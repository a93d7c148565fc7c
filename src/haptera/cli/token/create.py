"""``haptera token create``"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from haptera.cli.client_command import Client, client_options
from haptera.cli.durations import Duration
from haptera.cli.exit_codes import DONE

if TYPE_CHECKING:
    from haptera.client import Database


@click.command()
@click.argument("name")
@click.option(
    "--role", "roles", multiple=True, required=True, metavar="ROLE", help="A role of it; may be given several times."
)
@click.option(
    "--ttl", type=Duration(), metavar="TIME", help="How long it is good: 30d, 12h or seconds. Unless given, for ever."
)
@click.option(
    "--quota-of",
    metavar="USER",
    help="The user for whose quota it counts; an administrator may say so. Unless given, its maker, where that has a "
    "quota.",
)
@client_options()
def command(name: str, roles: tuple[str, ...], ttl: float | None, quota_of: str | None, client: Client) -> int:
    """Make the token NAME, and write its user and its secret, with a tab between them.

    The user is token:NAME, and the secret its password: HAPTERA_PASSWORD, or the password of a URL in HAPTERA_URL.
    Nothing shows the secret again. Exit code 1: there is such a token, or no such role or
    user.
    """

    async def run(db: Database) -> int:
        made = await db.admin.add_token(name, roles=roles, ttl=ttl, quota_of=quota_of)
        fields = {"user": made.name, "secret": made.secret, "expires_at": made.expires_at}
        client.show(fields, f"{made.name}\t{made.secret}")
        return DONE

    return client.run(run, change=True)
