"""``haptera user quota``"""

from __future__ import annotations

from typing import Any

import click

from haptera.cli.administration import change, user_argument
from haptera.cli.client_command import Client, client_options
from haptera.key_rules import VERSION_MAX

_COUNT = click.IntRange(0, VERSION_MAX)


@click.command()
@click.argument("name", metavar="USER", callback=user_argument)
@click.option("--keys", type=_COUNT, metavar="COUNT", help="The most keys: those that the user has written last.")
@click.option(
    "--bytes", "size", type=_COUNT, metavar="BYTES", help="The most bytes of these keys and their values together."
)
@click.option("--watches", type=_COUNT, metavar="COUNT", help="The most watches that are open at one time.")
@click.option("--leases", type=_COUNT, metavar="COUNT", help="The most leases.")
@click.option(
    "--claim",
    metavar="PREFIX",
    help="Count the present keys that begin with PREFIX for USER, unless they count for another user. Keys that are "
    "older than the quota and not claimed count from their next change on.",
)
@click.option("--none", "without", is_flag=True, help="Remove the quota.")
@client_options()
def command(name: str, without: bool, claim: str | None, client: Client, **numbers: int | None) -> int:
    """Say how much USER may have, in the place of an earlier quota.

    A part that is not given has no bound. A change beyond the quota is refused (3013), while reads, deletes and
    changes that add nothing go on; `haptera user show USER` says how much is used. Tokens count for the user who made
    them, where that has a quota, or for the one that `haptera token create --quota-of` names.

    Exit code 1: there is no such user.
    """
    given: dict[str, Any] = {name: number for name, number in numbers.items() if number is not None}
    if without and (given or claim is not None):
        raise click.UsageError("--none removes the quota, and goes with no other option")
    if not without and not given:
        raise click.UsageError(
            "give at least one of --keys, --bytes, --watches and --leases, or --none; `haptera user show USER` says "
            "what is used"
        )
    shown = {"keys": None, "bytes": given.get("size"), "watches": None, "leases": None, **given}
    shown.pop("size", None)
    return change(
        client,
        lambda admin: admin.set_quota(name, claim=claim, **given),
        "removed" if without else "set",
        {"user": name, "quota": None if without else shown},
    )
