"""``haptera backup create``"""

from __future__ import annotations

import os
import stat
import time
from functools import partial
from typing import TYPE_CHECKING, Final

import click

from haptera.cli import output, standard_streams
from haptera.cli.client_command import Client, client_options
from haptera.cli.exit_codes import CANNOT_WRITE, DONE
from haptera.cli.progress_option import progress, progress_option
from haptera.cli.transfer.write_rows import new_file
from haptera.errors import HapteraError

if TYPE_CHECKING:
    from collections.abc import Callable

    from haptera.client import Backup, Database

#: Where a node has a master key that it made itself.
GENERATED: Final = "generated"


@click.command()
@click.argument("file", metavar="FILE")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@progress_option
@client_options(timeout=30.0)
def command(file: str, force: bool, no_progress: bool, client: Client) -> int:
    """Write a backup of the store, as it is now, to FILE; - is standard output.

    Writes go on meanwhile. FILE gets its name when it is whole and on the disk: a backup that fails leaves no FILE, or
    the older one. Exit code 14: FILE cannot be written, or exists.
    """
    if file == "-" or standard_streams.is_output(file):
        if output.is_terminal():
            raise click.UsageError("a terminal has no use for the bytes of a backup; name a file, or a pipe")
        return client.run(partial(_to_standard_output, shows=not no_progress))
    if not force and _exists(file):
        return _refuse(f"cannot write {file}: it exists; --force replaces it")

    async def to_file(db: Database) -> int:
        started = time.monotonic()
        try:
            with new_file(file, packs=False) as target:
                backup = await _copied(db, target.write, shows=not no_progress)
        except OSError as error:
            if isinstance(error, HapteraError):  # of the store: a lost connection and a timeout are OSErrors, too
                raise
            return _refuse(f"cannot write {file}: {error.strerror or error}")
        seconds = time.monotonic() - started
        client.show(
            {
                "file": file,
                "revision": backup.revision,
                "index": backup.index,
                "bytes": backup.size,
                "seconds": round(seconds, 3),
                "master_key": backup.master_key,
            },
            f"{file}: revision {backup.revision}, index {backup.index}, {backup.size} bytes in {seconds:.1f} s; "
            "a restore needs the master key of the node",
        )
        _warn(backup)
        return DONE

    return client.run(to_file)


async def _to_standard_output(db: Database, *, shows: bool) -> int:
    _warn(await _copied(db, output.write, shows=shows))
    return DONE


async def _copied(db: Database, write: Callable[[bytes], object], *, shows: bool) -> Backup:
    """Hand every piece of a backup to ``write``."""
    with progress("backing up", None, wanted=shows) as update:
        async with db.backup() as pieces:
            size = 0
            async for piece in pieces:
                write(piece)
                size += len(piece)
                update(size)
            return pieces


def _warn(backup: Backup) -> None:
    """Say loudly where the key is beside the data: with the disk both are gone, and the backup is noise."""
    if backup.master_key == GENERATED:
        output.warning(
            "master_key_beside_data",
            {
                "meaning": "a restore needs the file master.key of the data directory, which the backup does not hold: "
                "without it the backup is noise",
                "help": "copy master.key to another machine, once",
            },
        )


def _exists(name: str) -> bool:
    """Whether a file would be replaced. A device or a pipe is written as it is."""
    try:
        mode = os.lstat(name).st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) or stat.S_ISLNK(mode)


def _refuse(message: str) -> int:
    output.error(message, {"message": message}, CANNOT_WRITE)
    return CANNOT_WRITE
