"""``haptera count``"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from haptera.cli.client_command import Client, Span, client_options, range_options
from haptera.cli.exit_codes import DONE
from haptera.cli.moments import PastMoment, moment_options

if TYPE_CHECKING:
    from haptera.client import Database


@click.command()
@range_options
@moment_options
@client_options()
def command(span: Span, moment: PastMoment, client: Client) -> int:
    """Write the number of keys: all of them, or the keys in a range (of several options all must hold).

    --at-revision and --at-time count the keys that there were, as far as the node keeps its changes.
    """

    async def run(db: Database) -> int:
        count = await db.count(**span, **moment)
        client.show({"count": count}, str(count))
        return DONE

    return client.run(run)
