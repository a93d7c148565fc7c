"""``haptera watch``"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import click

from haptera.cli import output
from haptera.cli.client_command import Client, client_options
from haptera.cli.exit_codes import DONE
from haptera.cli.key_names import KEY
from haptera.cli.transfer import field_escapes
from haptera.key_rules import VERSION_MAX

if TYPE_CHECKING:
    from haptera.client import Database, Event, Watch

#: Lines that are written together while events come faster than they can be read.
LINES_MAX: Final = 1000


@click.command()
@click.argument("key", required=False, type=KEY)
@click.option("--prefix", type=KEY, metavar="TEXT", help="Every key that begins with this.")
@click.option(
    "--from", "start", type=click.IntRange(1, VERSION_MAX), metavar="REVISION", help="The changes from this one on."
)
@click.option("--initial", is_flag=True, help="At first the entries that are there.")
@click.option("--previous", is_flag=True, help="With each change the value of before.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after N events.")
@client_options()
def command(
    key: str | None,
    prefix: str | None,
    start: int | None,
    initial: bool,
    previous: bool,
    count: int | None,
    client: Client,
) -> int:
    """Follow the changes of KEY, of the keys with a prefix, or of all keys, until Ctrl-C.

    A line for each: revision, tab, kind, tab, key, tab, value. The kind is put, delete or expire; with --initial
    it is first present for each entry that is there, then synced once, with an empty key. The value is quoted as
    `haptera scan` does it, and empty where there is none; --previous adds the value of before behind one more tab.
    --json writes a JSON object a line. A connection that is lost is made again, and no change is left out or told
    twice. --timeout limits the wait for the first answer.
    """
    if key is not None and prefix is not None:
        raise click.UsageError("KEY and --prefix exclude each other")
    if initial and start is not None:
        raise click.UsageError("--initial and --from exclude each other")

    async def run(db: Database) -> int:
        async with db.watch(key, prefix=prefix, start_revision=start, initial=initial, previous=previous) as events:
            await _show(events, previous, count, client.as_json)
        return DONE

    return client.run(run)


async def _show(events: Watch, previous: bool, count: int | None, as_json: bool) -> None:
    told = 0
    async for event in events:
        if as_json:
            output.json_line(_fields(event, previous))
        else:
            output.write(_line(event, previous))
        told += 1
        if told == count:
            break
        if not events.ready or told % LINES_MAX == 0:
            output.flush()
            await asyncio.sleep(0)


def _line(event: Event, previous: bool) -> bytes:
    columns = [
        str(event.version),
        event.kind,
        field_escapes.written(event.key),
        field_escapes.written(event.value or b""),
    ]
    if previous:
        columns.append("" if event.previous is None else field_escapes.written(event.previous.value))
    return ("\t".join(columns) + "\n").encode()


def _fields(event: Event, previous: bool) -> dict[str, Any]:
    fields: dict[str, Any] = {"kind": event.kind, "key": event.key, **output.value_fields(event.value)}
    fields["version"] = event.version
    fields["expires_at"] = event.expires_at
    if previous:
        with_value = not event.previous_omitted
        fields["previous"] = (
            None if event.previous is None else output.entry_fields(event.previous, with_value=with_value)
        )
    return fields
