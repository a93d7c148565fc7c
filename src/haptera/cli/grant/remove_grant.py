"""``haptera grant remove``"""

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
    """Take PERMISSIONS, with commas between them, from the grant of ROLE on just this PATTERN.

    Quote PATTERN, such as 'app/*', from the shell. Exit code 1: there is no such role. Exit code 4: it is admin.
    """
    fields = {"role": role, "permissions": permissions, "pattern": pattern}
    return change(client, lambda admin: admin.remove_grant(role, permissions, pattern), "removed", fields)
