"""``haptera audit``"""

from __future__ import annotations

from typing import Final

import click

from haptera.cli.groups import LazyGroup

#: The commands of the group, each with its line in the help.
COMMANDS: Final = {
    "verify": "Check every line of an audit log.",
    "show": "Write its lines, with times for people.",
    "head": "Write the head of an audit log, to be kept elsewhere.",
}


@click.group(
    cls=LazyGroup,
    package="haptera.cli.audit",
    commands_of=COMMANDS,
    modules={"verify": "verify_audit", "show": "show_lines"},
)
def command() -> None:
    """Check the audit log of a data directory, and write its lines and its head.

    These commands need no node and no key, and change nothing. A node may run meanwhile.
    """
