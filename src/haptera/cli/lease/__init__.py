"""``haptera lease``"""

from __future__ import annotations

from typing import Final

import click

from haptera.cli.groups import ClientGroup

#: The commands of the group, each with its line in the help.
COMMANDS: Final = {
    "grant": "Grant a lease, and write its id.",
    "keep": "Grant a lease, and keep it alive until it is told to stop.",
    "renew": "Give leases their whole time again.",
    "revoke": "End a lease, and delete its keys.",
    "list": "List the leases of the store.",
}


@click.group(cls=ClientGroup, package="haptera.cli.lease", commands_of=COMMANDS, modules={"list": "list_leases"})
def command() -> None:
    """Grant leases, keep them alive, list and end them.

    A lease is a time to live that several keys share. `haptera set KEY VALUE --lease ID` stores a key that is deleted
    when the lease ends: when it was not renewed for its time, or is revoked.
    """
