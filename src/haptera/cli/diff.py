"""``haptera diff``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from haptera.cli import output
from haptera.cli.client_command import Client, client_options
from haptera.cli.exit_codes import DONE, FAILED
from haptera.cli.key_names import KEY
from haptera.cli.moments import PastMoment, RevisionOrTime
from haptera.cli.transfer import field_escapes

if TYPE_CHECKING:
    from haptera.client import Database

#: Keys that may differ: their values are in memory until all are known.
KEYS_MAX: Final = 1_000_000

#: The values of before and of after, by key; None where there was none.
Differences = dict[str, tuple["bytes | None", "bytes | None"]]


@click.command()
@click.option("--from", "before", type=RevisionOrTime(), required=True, metavar="MOMENT", help="The store before.")
@click.option("--to", "after", type=RevisionOrTime(), metavar="MOMENT", help="The store after; now.")
@click.option("--prefix", type=KEY, metavar="TEXT", default="", help="Only keys that begin with this.")
@client_options()
def command(before: PastMoment, after: PastMoment | None, prefix: str, client: Client) -> int:
    """List the keys whose value differs between two moments, in key order.

    A moment is a revision, or a time with its zone, such as 2026-11-28T14:00:00Z; Unix seconds are told from a revision
    by a fraction, as in 1795000000.0.

    A line for each: +, - or *, tab, key, tab, value of before, tab, value of after. + is a key that was not there
    before, - one that is not there after. --json writes a JSON object a line. The node must still have the changes
    between the two moments, and a moment that is still to come is refused. It needs the permissions watch
    and read on the prefix.
    """

    async def run(db: Database) -> int:
        start = await _revision(db, before)
        newest = int((await db.status())["revision"])
        end = newest if after is None else await _revision(db, after)
        future = max(start, end)
        if future > newest:  # a watch would wait for it beyond any timeout
            message = f"the revision {future} is not reached yet: the newest one is {newest}"
            output.error(message, {"message": message, "revision": future, "newest": newest}, FAILED)
            return FAILED
        differences = await _differences(db, start, end, prefix)
        for key in sorted(differences):
            old, new = differences[key]
            if old == new:
                continue
            if client.as_json:
                output.json_line(_fields(key, old, new))
            else:
                sign = "+" if old is None else "-" if new is None else "*"
                written = field_escapes.written
                columns = (sign, written(key), written(old or b""), written(new or b""))
                output.write(("\t".join(columns) + "\n").encode())
        return DONE

    return client.run(run)


async def _revision(db: Database, moment: PastMoment) -> int:
    """The revision of a moment."""
    if "at_revision" in moment:
        return moment["at_revision"]
    await db.get_many([], **moment)
    return db.revision


async def _differences(db: Database, start: int, end: int, prefix: str) -> Differences:
    """The first and the last value of each key that was changed between two revisions."""
    found: Differences = {}
    async with db.watch(prefix=prefix, start_revision=start + 1, previous=True, progress_interval=1) as events:
        while (events.revision or 0) < end:
            for event in await events.next_events():
                if event.version > end:
                    continue
                previous = None if event.previous is None else event.previous.value
                if event.previous_omitted and event.key not in found:
                    entry = await db.get(event.key, at_revision=start)
                    previous = None if entry is None else entry.value
                found[event.key] = (found.get(event.key, (previous, None))[0], event.value)
            if len(found) > KEYS_MAX:
                raise click.UsageError(f"more than {KEYS_MAX:,} keys were changed; --prefix chooses some")
    return found


def _fields(key: str, before: bytes | None, after: bytes | None) -> dict[str, Any]:
    return {"key": key, "before": output.value_fields(before), "after": output.value_fields(after)}
