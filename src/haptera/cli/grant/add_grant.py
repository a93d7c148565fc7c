"""``haptera grant add``"""

from __future__ import annotations

import click

from haptera.cli.administration import PermissionList, change
from haptera.cli.client_command import Client, client_options


@click.command()
@click.argument("role")
@click.argument("permissions", type=PermissionList())
@click.argument("pattern")
@client_options()
def command(role: str, permissions: tuple[str, ...], pattern: str, client: Client) -> int:
    """Let ROLE do PERMISSIONS, with commas between them, to the keys that match the glob PATTERN.

    Quote PATTERN, such as 'app/*', from the shell. Exit code 1: there is no such role. Exit code 4: it is admin.
    """
    fields = {"role": role, "permissions": permissions, "pattern": pattern}
    return change(client, lambda admin: admin.add_grant(role, permissions, pattern), "added", fields)
