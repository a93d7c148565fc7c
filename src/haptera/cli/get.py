"""``haptera get``"""

from __future__ import annotations

from codecs import getincrementaldecoder
from typing import TYPE_CHECKING, Final

import click

from haptera.cli import output
from haptera.cli.client_command import Client, client_options
from haptera.cli.exit_codes import DONE, NO
from haptera.cli.failures import tell
from haptera.cli.key_names import KEY
from haptera.cli.moments import PastMoment, moment_options
from haptera.cli.transfer.write_rows import tsv
from haptera.errors import Code, ServerError, failure

if TYPE_CHECKING:
    from haptera.client import Database, Entry

#: Bytes of a value that a terminal shows: with each of them escaped some hundred lines.
SHOWN_SIZE_MAX: Final = 16 * 1024


@click.command()
@click.argument("keys", nargs=-1, required=True, type=KEY, metavar="KEY...")
@click.option("--raw", is_flag=True, help="Write the value byte for byte and nothing else.")
@moment_options
@client_options()
def command(keys: tuple[str, ...], raw: bool, moment: PastMoment, client: Client) -> int:
    """Write the value of KEY to standard output. With several keys it writes a line for each: key, tab, value.

    A line end follows the value, unless --raw is given. On a terminal control characters are shown escaped, and of a
    value of more than 16 KiB the beginning. Lines of
    several keys are like lines of `haptera scan`, all of one revision. With --json each entry is an object, with
    value_base64 in place of value where the value is not UTF-8. --at-revision and --at-time read the store as it
    was, as far as the node keeps its changes. Exit code 1: one of the keys is missing.
    """
    if raw and len(keys) > 1:
        raise click.UsageError("--raw goes with one KEY")
    if len(keys) == 1:
        return client.run(lambda db: _one(db, keys[0], moment, client.as_json, raw))
    return client.run(lambda db: _several(db, keys, moment, client.as_json))


async def _one(db: Database, key: str, moment: PastMoment, as_json: bool, raw: bool) -> int:
    entry = await db.get(key, **moment)
    if entry is None:
        raise _missing(key)
    if as_json:
        output.json_line(output.entry_fields(entry))
    elif raw:
        output.write(entry.value)
    elif output.is_terminal():
        _to_terminal(entry.value)
    else:
        output.write(entry.value + b"\n")
    return DONE


def _to_terminal(value: bytes) -> None:
    """Show a value, or the beginning of one that would take a terminal for minutes and leave nothing else on it."""
    if len(value) <= SHOWN_SIZE_MAX:
        output.line(output.shown(value, lines=True))
        return
    # A character that the end cuts in two is left out.
    beginning = getincrementaldecoder("utf-8")("backslashreplace").decode(value[:SHOWN_SIZE_MAX])
    output.line(f"{output.shown(beginning, lines=True)}…")
    output.flush()
    output.to_standard_error(
        f"haptera: these are the first {SHOWN_SIZE_MAX:,} of {len(value):,} bytes; --raw writes all of them, to a file "
        "or a pipe"
    )


async def _several(db: Database, keys: tuple[str, ...], moment: PastMoment, as_json: bool) -> int:
    found = await db.get_many(keys, **moment)
    entries = [entry for entry in found if entry is not None]
    if output.as_tables() and not as_json:
        if entries:
            output.table(["key", "value", "version"], map(_cells, entries))
    else:
        for entry in entries:
            output.write(output.json_text(output.entry_fields(entry)).encode() + b"\n" if as_json else tsv(entry))
    output.flush()
    for key, present in zip(keys, found, strict=True):
        if present is None:
            tell(_missing(key))
    return DONE if len(entries) == len(keys) else NO


def _cells(entry: Entry) -> list[str]:
    return [entry.key, entry.value.decode(errors="backslashreplace"), str(entry.version)]


def _missing(key: str) -> ServerError:
    return failure(Code.KEY_NOT_FOUND, {"key": key}).exception()
