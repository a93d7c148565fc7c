"""``haptera scan``"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from haptera.cli import output
from haptera.cli.client_command import Client, Span, client_options, range_options
from haptera.cli.exit_codes import DONE
from haptera.cli.key_names import KEY
from haptera.cli.moments import PastMoment, moment_options
from haptera.cli.transfer import field_escapes
from haptera.cli.transfer.write_rows import tsv
from haptera.key_rules import VERSION_MAX

if TYPE_CHECKING:
    from haptera.client import Database, Entry, Scan

#: Rows of one table on a terminal: a long scan shows its first rows while the rest is still on its way.
TABLE_ROWS = 500


@click.command()
@range_options
@click.option("--after", type=KEY, metavar="KEY", help="Keys behind this one, in the order of the scan: the next page.")
@click.option("--limit", type=click.IntRange(0, VERSION_MAX), metavar="N", help="The most entries to list.")
@click.option("--reverse", is_flag=True, help="From the last key to the first.")
@click.option("--keys-only", is_flag=True, help="Keys without values.")
@moment_options
@client_options()
def command(
    span: Span, after: str | None, limit: int | None, reverse: bool, keys_only: bool, moment: PastMoment, client: Client
) -> int:
    r"""List entries in key order, all as they were at one revision: the present one, or the one of --at-revision or
    --at-time, as far as the node keeps its changes.

    Into a pipe goes a line for each: key, tab, value. A field with tabs, line ends, other characters that are not
    printable or bytes that are not UTF-8 is written as a shell quotes it, $'a\tb\xff', so that a line is always one
    entry. --json writes a JSON object a line. `haptera import` reads both. --timeout limits the wait for each page.
    """
    if after is not None:
        if ("end" if reverse else "start") in span:
            raise click.UsageError("--after goes with neither --start nor, in a scan with --reverse, --end")
        span["end" if reverse else "start"] = after if reverse else f"{after}\0"

    async def run(db: Database) -> int:
        entries = db.scan(**span, limit=limit, reverse=reverse, keys_only=keys_only, **moment)
        async with entries:
            if client.as_json:
                async for entry in entries:
                    output.json_line(output.entry_fields(entry, with_value=not keys_only))
            elif output.as_tables():
                await _tables(entries, keys_only)
            else:
                async for entry in entries:
                    output.write(_key(entry) if keys_only else tsv(entry))
        return DONE

    return client.run(run)


def _key(entry: Entry) -> bytes:
    return f"{field_escapes.written(entry.key)}\n".encode()


async def _tables(entries: Scan, keys_only: bool) -> None:
    columns = ["key", "version"] if keys_only else ["key", "value", "version"]
    rows: list[list[str]] = []
    async for entry in entries:
        value = [] if keys_only else [entry.value.decode(errors="backslashreplace")]
        rows.append([entry.key, *value, str(entry.version)])
        if len(rows) == TABLE_ROWS:
            output.table(columns, rows)
            rows = []
    if rows:
        output.table(columns, rows)
