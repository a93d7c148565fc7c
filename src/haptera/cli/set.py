"""``haptera set``"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from haptera.cli.client_command import Client, client_options, fence_option
from haptera.cli.exit_codes import DONE
from haptera.cli.key_names import KEY
from haptera.cli.numbers import TTL
from haptera.cli.standard_input import read_standard_input
from haptera.key_rules import VALUE_SIZE_MAX, VERSION_MAX

if TYPE_CHECKING:
    from haptera.client import Database


@click.command()
@click.argument("key", type=KEY)
@click.argument("value")
@click.option("--if-version", type=click.IntRange(0, VERSION_MAX), metavar="N", help="Only if KEY has this version.")
@click.option("--if-absent", is_flag=True, help="Only if there is no KEY.")
@click.option("--if-present", is_flag=True, help="Only if there is a KEY.")
@click.option("--ttl", type=TTL, metavar="SECONDS", help="KEY expires after SECONDS.")
@click.option("--keep-ttl", is_flag=True, help="KEY keeps the time at which it expires.")
@click.option("--lease", type=click.IntRange(1, VERSION_MAX), metavar="ID", help="KEY ends with this lease.")
@fence_option
@client_options()
def command(key: str, value: str, client: Client, **options: Any) -> int:
    """Store VALUE under KEY, and write the new version.

    Without --ttl, --keep-ttl and --lease KEY does not expire any more. A VALUE of - is read from standard input, byte
    for byte. One that begins with a dash goes behind --, as in `haptera set key -- -5`. Exit code 1: a condition did
    not hold, and nothing was stored.
    """
    if options["if_absent"] and options["if_present"]:
        raise click.UsageError("--if-absent and --if-present exclude each other")
    if options["ttl"] is not None and options["keep_ttl"]:
        raise click.UsageError("--ttl and --keep-ttl exclude each other")
    if options["lease"] is not None and (options["ttl"] is not None or options["keep_ttl"]):
        raise click.UsageError("--lease excludes --ttl and --keep-ttl")
    # A byte more than a value may have, so that the store refuses it.
    data = read_standard_input(VALUE_SIZE_MAX + 1) if value == "-" else os.fsencode(value)

    async def run(db: Database) -> int:
        version = await db.set(key, data, **options)
        client.show({"key": key, "version": version}, str(version))
        return DONE

    return client.run(run, change=True)
