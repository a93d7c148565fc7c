"""``haptera get``"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from haptera.cli import output
from haptera.cli.client import Client, client_options
from haptera.cli.codes import DONE
from haptera.error_table import Code
from haptera.errors import failure

if TYPE_CHECKING:
    from haptera.client import Database


@click.command("get")
@click.argument("key")
@click.option("--raw", is_flag=True, help="Write the value byte for byte and nothing else.")
@client_options()
def command(key: str, raw: bool, client: Client) -> int:
    """Write the value of KEY to standard output.

    A line end follows the value, unless --raw is given. On a terminal control characters are shown escaped. With
    --json the whole entry is written, with value_base64 in place of value where the value is not UTF-8. Exit code 1:
    there is no such key.
    """
    return client.run(lambda db: _get(db, key, client.as_json, raw))


async def _get(db: Database, key: str, as_json: bool, raw: bool) -> int:
    entry = await db.get(key)
    if entry is None:
        raise failure(Code.KEY_NOT_FOUND, {"key": key}).exception()
    if as_json:
        output.json_line(output.entry_fields(entry))
    elif raw:
        output.write(entry.value)
    elif output.is_terminal():
        output.line(output.shown(entry.value, lines=True))
    else:
        output.write(entry.value + b"\n")
    return DONE
