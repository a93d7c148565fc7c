"""``haptera role add``"""

from __future__ import annotations

import click

from haptera.cli.administration import change
from haptera.cli.client_command import Client, client_options


@click.command()
@click.argument("name")
@click.option(
    "--parent",
    "parents",
    multiple=True,
    metavar="ROLE",
    help="A role whose grants it has too; may be given several times.",
)
@client_options()
def command(name: str, parents: tuple[str, ...], client: Client) -> int:
    """Add the role NAME.

    Exit code 1: there is such a role, or no such parent.
    """
    return change(client, lambda admin: admin.add_role(name, parents=parents), "added", {"role": name})
