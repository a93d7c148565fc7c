"""``haptera export``"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import click

from haptera.cli import output, standard_streams
from haptera.cli.client_command import Client, Span, client_options, range_options
from haptera.cli.exit_codes import CANNOT_WRITE, DONE
from haptera.cli.progress_option import is_shown, progress, progress_option
from haptera.cli.transfer.write_rows import WRITERS, Writer, format_for, new_file
from haptera.errors import HapteraError, PermissionDenied, UnknownMethod

if TYPE_CHECKING:
    from collections.abc import Callable

    from haptera.cli.transfer.recognise_format import Format
    from haptera.client import Database, Entry

#: Entries after which the progress is told again: each would cost a tenth of the time.
UPDATED_ENTRIES: Final = 100


@click.command()
@click.argument("file", metavar="FILE")
@range_options
@click.option(
    "--format", "form", type=click.Choice(list(WRITERS)), help="The format; by default by the name of FILE, else jsonl."
)
@progress_option
@client_options(timeout=30.0)
def command(file: str, span: Span, form: Format | None, no_progress: bool, client: Client) -> int:
    """Write every entry, or the entries of a range, to FILE; - is standard output.

    The entries are all of one revision. `haptera import` reads the file and stores each key and value byte for byte as
    it was. FILE.jsonl has a JSON object a line, with the time at which the entry expires; FILE.tsv has a line of two
    fields, FILE.csv a row; FILE.….gz is packed. Keys of leases, of locks for instance, are written as keys that stay.
    It needs the permissions scan and read, and writes the entries for which the user has both; with lease it says as
    well how many keys of the user's own leases there are.
    """
    form = form or format_for(file)
    write = WRITERS[form]
    if form == "csv" and output.is_terminal() and (file == "-" or standard_streams.is_output(file)):
        raise click.UsageError("a terminal would obey the control characters of CSV; --format tsv escapes them")

    async def to_standard_output(db: Database) -> int:
        # A terminal that shows the entries has no room for a line that is drawn again and again.
        shows = not no_progress and not output.is_terminal()
        await _written(db, span, lambda entry: output.write(write(entry)), shows=shows)
        await _warn(db)
        return DONE

    async def to_file(db: Database) -> int:
        started = time.monotonic()
        try:
            count, revision = await _export(db, span, file, write, shows=not no_progress)
        except OSError as error:
            if isinstance(error, HapteraError):  # of the store: a lost connection and a timeout are OSErrors, too
                raise
            message = f"cannot write {file}: {error.strerror or error}"
            output.error(message, {"message": message}, CANNOT_WRITE)
            return CANNOT_WRITE
        seconds = time.monotonic() - started
        await _warn(db)
        client.show(
            {"exported": count, "revision": revision, "seconds": round(seconds, 3)},
            f"{output.counted(count, 'entry', 'entries')} exported in {seconds:.1f} s",
        )
        return DONE

    return client.run(to_standard_output if file == "-" or standard_streams.is_output(file) else to_file)


async def _export(db: Database, span: Span, name: str, write: Writer, *, shows: bool) -> tuple[int, int | None]:
    with new_file(name) as file:
        return await _written(db, span, lambda entry: file.write(write(entry)), shows=shows)


async def _written(
    db: Database, span: Span, write: Callable[[Entry], object], *, shows: bool
) -> tuple[int, int | None]:
    """Hand the entries of a range to ``write``, and return their number and revision."""
    total = await db.count(**span) if shows and is_shown() else None
    count = 0
    with progress("exporting", total, "entries", counts=True, wanted=shows) as update:
        async with db.scan(**span) as entries:
            async for entry in entries:
                write(entry)
                count += 1
                if not count % UPDATED_ENTRIES:
                    update(count)
            update(count)
            return count, entries.revision


async def _warn(db: Database) -> None:
    """Say that keys may be in the export which an import does not let end, where there are such keys."""
    try:
        leased = sum([lease.keys async for lease in db.leases()])
    except UnknownMethod:  # an older node, which has no leases
        return
    except PermissionDenied:
        output.warning(
            "leased_keys_unknown",
            {
                "meaning": "keys that end with a lease, as those of locks do, may be among the exported ones, and are "
                "keys that stay once they are imported; this user may not see leases",
                "help": "the permission lease shows the user's own leases, and admin all of them",
            },
        )
        return
    if leased:
        output.warning(
            "leased_keys",
            {
                "meaning": f"{output.counted(leased, 'key')} of the store end with a lease, as those of locks do; the "
                "ones among the exported are keys that stay once they are imported",
                "help": "choose a range without them, or delete them after the import",
            },
        )
