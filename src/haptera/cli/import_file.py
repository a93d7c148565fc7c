"""``haptera import``"""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import click

from haptera.cli import output, standard_streams
from haptera.cli.client_command import Client, client_options, fence_option
from haptera.cli.exit_codes import DONE, INTERRUPTED, UNKNOWN, USAGE
from haptera.cli.failures import described, exit_code, fields, next_step
from haptera.cli.parameter_type import ParameterType
from haptera.cli.progress_option import progress, progress_option
from haptera.cli.transfer.columns import Wanted
from haptera.cli.transfer.errors import ChangedFile
from haptera.cli.transfer.import_state import SUFFIX, CannotResume, ImportPlace, is_regular
from haptera.cli.transfer.row_batches import Reader
from haptera.cli.transfer.store_rows import Interrupted, Tally, store
from haptera.errors import HapteraError, PermissionDenied, UnknownMethod

if TYPE_CHECKING:
    from haptera.client import Database

TAB = "\t"
#: The options that give the rows of a file their keys and values. An import that goes on must have the same.
_MEANINGFUL: Final = [
    "form",
    "header",
    "prefix",
    "key_column",
    "value_column",
    "separator",
    "comment",
    "raw",
    "skip_bad",
]


class Separator(ParameterType[str]):
    """One character that stands between two fields."""

    name = "character"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        char = TAB if value in {r"\t", "tab"} else str(value)
        if len(char) != 1 or char in "\r\n\"'\\$" or not char.isascii():
            self.fail(f"{value!r} is not one character that can separate fields.", param, ctx)
        return char


@click.command()
@click.argument("file", metavar="FILE")
@click.option(
    "--format", "form", type=click.Choice(["tsv", "csv", "jsonl"]), help="The format; by default found in FILE."
)
@click.option("--header", is_flag=True, help="The first line names the columns.")
@click.option("--prefix", default="", metavar="TEXT", help="Put this before every key.")
@click.option("--key-column", metavar="NAME|N", help="The column of the keys. [1]")
@click.option("--value-column", metavar="NAME|N", help="The column of the values. [all but the keys']")
@click.option("--separator", type=Separator(), metavar="CHAR", help="The character between two fields. [tab; of CSV ,]")
@click.option("--comment", metavar="TEXT", help="Pass over lines that begin with this.")
@click.option("--raw", is_flag=True, help="Take the fields of a TSV file as they stand, even in $'…'.")
@click.option("--skip-bad", is_flag=True, help="Pass over rows that cannot be stored, and count them.")
@click.option("--resume", is_flag=True, help=f"Keep the place in FILE{SUFFIX}, and go on from there.")
@fence_option
@progress_option
@client_options(timeout=30.0)
def command(file: str, fence: int | None, no_progress: bool, client: Client, **options: Any) -> int:
    """Store the rows of a file; - is standard input, and a gzip file is unpacked.

    The file may come from `haptera export` or `haptera scan`; it may be any TSV or CSV file, or JSON lines. The
    output of `etcdctl get -w json`, of `consul kv export`, and the JSON of Redis strings that RIOT and redis-dump
    write, are recognised. docs/command-line.md describes each format.

    In a TSV file the key is the first column and the value the rest of the line, tabs included, unless --key-column
    and --value-column (a number from 1 or, with --header, a name) say otherwise. A backslash is a backslash. If a key
    comes twice, the later row wins. With --header every line must have as many columns as the first. Rows of JSON
    lines keep the time at which they expire, and are left out when it is over.

    Rows are stored in batches, each whole or not at all. When the import ends early, it says how many rows are
    certainly stored and at which line it stopped; to import the file again is always safe.

    With --resume an import goes on where the one before it ended, however that ended, by kill -9 too. The place is kept
    in a file beside FILE until all is stored. The file must begin with the bytes that were stored already, and the
    options must be the same.
    """
    wanted = Wanted(
        header=options["header"],
        key=options["key_column"],
        value=options["value_column"],
        separator=options["separator"],
        comment=os.fsencode(options["comment"] or "") or None,
        raw=options["raw"],
    )
    try:
        raw = open_input(file)
    except OSError as error:
        name = "standard input" if file == "-" else file
        raise click.UsageError(f"cannot read {name}: {error.strerror or error}") from None
    with raw:
        if options["resume"] and (file == "-" or not is_regular(file)):
            raise click.UsageError("--resume needs a file that can be read again, and no pipe or standard input")
        size = 0 if file == "-" else Path(file).stat().st_size
        read = partial(Reader, raw, file, wanted, form=options["form"], prefix=options["prefix"])
        read = partial(read, skip_bad=options["skip_bad"])
        storing = partial(_import, client=client, size=size, fence=fence, shows=not no_progress)

        async def run(db: Database) -> int:
            if not options["resume"]:
                return await storing(db, read())
            place = await _place(db, file, options)
            try:
                place.note()  # a folder that takes no file is told before anything is stored
            except OSError as error:
                raise click.UsageError(f"cannot keep the place in {place.path}: {error.strerror or error}") from None
            resumed = read(after=place.state.place, digest=place.state.digest, digests=True)
            return await storing(db, resumed, place=place)

        return client.run(run, change=True)


async def _place(db: Database, file: str, options: dict[str, Any]) -> ImportPlace:
    """The place at which an import begins or goes on. Raises ``UsageError`` for one of something else."""
    try:
        store: str | None = (await db.status())["node_id"].hex()
    except (PermissionDenied, UnknownMethod):
        store = None
    given = {name: str(options[name]) for name in _MEANINGFUL if options[name]}
    try:
        return ImportPlace(file, store, given)
    except CannotResume as error:
        raise click.UsageError(f"{error}; without that file the import begins at the first line") from None
    except OSError as error:
        raise click.UsageError(f"cannot read the place of the import: {error}") from None


def open_input(file: str) -> BinaryIO:
    """The file unbuffered; ``-`` is standard input, by its descriptor: its reading thread may outlive the command."""
    return standard_streams.open_input() if file == "-" else open(file, "rb", buffering=0)


async def _import(
    db: Database,
    reader: Reader,
    *,
    client: Client,
    size: int,
    fence: int | None,
    shows: bool,
    place: ImportPlace | None = None,
) -> int:
    started = time.monotonic()
    with progress("importing", size, "rows", wanted=shows) as update:
        tally = await store(db, reader, update, fence=fence, place=place)
    if place is not None:
        _keep(place, tally)
    code = _code(tally)
    _report(tally, reader, time.monotonic() - started, code, client, place)
    return code


def _keep(place: ImportPlace, tally: Tally) -> None:
    """Note the place at which an import has ended early; one that is done needs none any more."""
    try:
        if tally.error is None:
            place.remove()
        else:
            place.note()
    except OSError as error:
        output.warning("place_not_kept", {"file": place.path, "meaning": error.strerror or str(error)})


def _code(tally: Tally) -> int:
    match tally.error:
        case None:
            return DONE
        case Interrupted():
            return INTERRUPTED
        case HapteraError() as error:
            return UNKNOWN if tally.uncertain else exit_code(error)
        case _:
            return USAGE


def _report(tally: Tally, reader: Reader, seconds: float, code: int, client: Client, place: ImportPlace | None) -> None:
    result = {
        "stored": tally.stored,
        "skipped": reader.skipped,
        "expired": tally.expired,
        "uncertain": tally.uncertain,
        f"stopped_at_{reader.unit}": tally.stopped_at,
    }
    if place is not None:
        result["stored_before"] = place.stored_before
    rows = output.counted(tally.stored, "row")
    if client.as_json:
        output.json_line({**result, "seconds": round(seconds, 3)})
    elif tally.error is None:
        skipped = f", {output.counted(reader.skipped, f'bad {reader.unit}')} skipped" if reader.skipped else ""
        expired = f", {output.counted(tally.expired, 'row')} expired already" if tally.expired else ""
        before = f", {output.counted(place.stored_before, 'row')} before" if place and place.stored_before else ""
        output.line(f"{rows} stored in {seconds:.1f} s{before}{skipped}{expired}")
    if tally.error is not None:
        certain = f"{rows} {'is' if tally.stored == 1 else 'are'} certainly stored"
        uncertain = f", {tally.uncertain} may be" if tally.uncertain else ""
        stopped = f"stopped at {reader.unit} {tally.stopped_at}"
        message = f"{described(tally.error, client.target)}; {certain}{uncertain}; {stopped}"
        told = {**fields(tally.error, client.target), "message": message, **result}
        goes_on = "" if place is None else "the same command goes on from there"
        if place is not None and isinstance(tally.error, ChangedFile):
            goes_on = f"without {place.path} the import begins at the first line"
        output.error(message, told, code, help_=next_step(tally.error, client.target) or goes_on)
