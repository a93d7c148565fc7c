"""``haptera status``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from haptera.cli import output
from haptera.cli.client_command import Client, client_options
from haptera.cli.exit_codes import DONE
from haptera.cli.transfer import field_escapes

if TYPE_CHECKING:
    from haptera.client import Database


@click.command()
@client_options()
def command(client: Client) -> int:
    """Show the URL of the node that answers, its version, its state and its health.

    The state is its durability, encryption, revision, keys, connections and more.
    """

    async def run(db: Database) -> int:
        said = await db.status()
        status = {"url": db.reached, **{name: _plain(value) for name, value in said.items()}}
        if client.as_json:
            output.json_line(status)
        elif output.is_terminal():
            output.table(["", "value"], [[name, _text(value)] for name, value in status.items()])
        else:
            for name, value in status.items():
                output.line(f"{field_escapes.written(name)}: {field_escapes.written(_text(value))}")
        return DONE

    return client.run(run)


def _plain(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
