"""``haptera diff``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from haptera.cli import output
from haptera.cli.client_command import Client, client_options
from haptera.cli.exit_codes import DONE
from haptera.cli.transfer import field_escapes
from haptera.key_rules import VERSION_MAX

if TYPE_CHECKING:
    from haptera.client import Database

#: Keys that may differ: their values are in memory until all are known.
KEYS_MAX: Final = 1_000_000

#: The values of before and of after, by key; None where there was none.
Differences = dict[str, tuple["bytes | None", "bytes | None"]]


@click.command()
@click.option(
    "--from", "start", type=click.IntRange(0, VERSION_MAX), required=True, metavar="REVISION", help="The store before."
)
@click.option("--to", "end", type=click.IntRange(0, VERSION_MAX), metavar="REVISION", help="The store after; now.")
@click.option("--prefix", metavar="TEXT", default="", help="Only keys that begin with this.")
@client_options()
def command(start: int, end: int | None, prefix: str, client: Client) -> int:
    """List the keys whose value differs between two revisions, in key order.

    A line for each: +, - or *, tab, key, tab, value of before, tab, value of after. + is a key that was not there
    before, - one that is not there after. --json writes a JSON object a line. The node must still have the
    changes between the two revisions.
    """

    async def run(db: Database) -> int:
        differences = await _differences(db, start, end, prefix)
        for key in sorted(differences):
            before, after = differences[key]
            if before == after:
                continue
            if client.as_json:
                output.json_line(_fields(key, before, after))
            else:
                sign = "+" if before is None else "-" if after is None else "*"
                written = field_escapes.written
                columns = (sign, written(key), written(before or b""), written(after or b""))
                output.write(("\t".join(columns) + "\n").encode())
        return DONE

    return client.run(run)


async def _differences(db: Database, start: int, end: int | None, prefix: str) -> Differences:
    """The first and the last value of each key that was changed between two revisions."""
    found: Differences = {}
    async with db.watch(prefix=prefix, start_revision=start + 1, previous=True, progress_interval=1) as events:
        if end is None:
            end = int((await db.status())["revision"])
        while (events.revision or 0) < end:
            for event in await events.next_events():
                if event.version > end:
                    continue
                previous = None if event.previous is None else event.previous.value
                found[event.key] = (found.get(event.key, (previous, None))[0], event.value)
            if len(found) > KEYS_MAX:
                raise click.UsageError(f"more than {KEYS_MAX:,} keys were changed; --prefix chooses some")
    return found


def _fields(key: str, before: bytes | None, after: bytes | None) -> dict[str, Any]:
    return {"key": key, "before": output.value_fields(before), "after": output.value_fields(after)}
