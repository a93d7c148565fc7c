"""``haptera history``"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from haptera.cli import output
from haptera.cli.client_command import Client, client_options
from haptera.cli.exit_codes import DONE, NO
from haptera.cli.key_names import KEY
from haptera.cli.transfer import field_escapes
from haptera.key_rules import VERSION_MAX

if TYPE_CHECKING:
    from haptera.client import Database, Event


@click.command()
@click.argument("key", type=KEY)
@click.option(
    "--after", type=click.IntRange(0, VERSION_MAX), metavar="VERSION", default=0, help="Versions above this one."
)
@click.option("--limit", type=click.IntRange(1, VERSION_MAX), metavar="N", help="The most versions to list.")
@client_options()
def command(key: str, after: int, limit: int | None, client: Client) -> int:
    """List the versions of KEY that the node still has, oldest first.

    A line for each: version, tab, time, tab, kind, tab, user, tab, value. The kind is put, delete or expire, or
    present for an entry that was written before the changes that the node keeps; its time and user are not
    known. --json writes a JSON object a line. Exit code 1: there is none.
    """

    async def run(db: Database) -> int:
        found = NO
        async for change in db.history(key, after=after, limit=limit):
            found = DONE
            if client.as_json:
                output.json_line(_fields(change))
            else:
                output.write(_line(change))
        return found

    return client.run(run)


def shown_time(seconds: float | None) -> str:
    """A time as the command line shows it; empty where it is not known."""
    if seconds is None:
        return ""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _line(change: Event) -> bytes:
    written = field_escapes.written
    columns = (str(change.version), shown_time(change.time), change.kind, written(change.user or ""))
    return ("\t".join((*columns, written(change.value or b""))) + "\n").encode()


def _fields(change: Event) -> dict[str, Any]:
    fields: dict[str, Any] = {"version": change.version, "kind": change.kind, **output.value_fields(change.value)}
    fields["time"] = shown_time(change.time) or None
    fields["user"] = change.user
    fields["expires_at"] = change.expires_at
    return fields
