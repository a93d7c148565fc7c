"""``haptera incr``"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from haptera.cli.client_command import Client, client_options, fence_option
from haptera.cli.exit_codes import DONE
from haptera.cli.key_names import KEY
from haptera.key_rules import INT64_MAX, INT64_MIN

if TYPE_CHECKING:
    from haptera.client import Database

INTEGER = click.IntRange(INT64_MIN, INT64_MAX)

_NEGATIVE = re.compile(r"-[0-9]+")
_TAKE_A_VALUE = frozenset({"--initial", "--fence", "--url", "--timeout"})


class NegativeNumbers(click.Command):
    """Takes ``-1`` for the number that it is, not for an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" not in args:
            numbers = [
                position
                for position, text in enumerate(args)
                if _NEGATIVE.fullmatch(text) and (position == 0 or args[position - 1] not in _TAKE_A_VALUE)
            ]
            others = [text for position, text in enumerate(args) if position not in numbers]
            args = [*others, "--", *(args[position] for position in numbers)]
        return super().parse_args(ctx, args)


@click.command(cls=NegativeNumbers)
@click.argument("key", type=KEY)
@click.argument("delta", type=INTEGER, default=1, required=False)
@click.option("--initial", type=INTEGER, default=0, metavar="N", help="Where a new key starts from; 0 by default.")
@fence_option
@client_options()
def command(key: str, delta: int, initial: int, fence: int | None, client: Client) -> int:
    """Add DELTA (1 by default, may be negative) to the number that KEY holds, and write the sum.

    Exit code 1: KEY holds no decimal number, or the sum is beyond 64 bits.
    """

    async def run(db: Database) -> int:
        value = await db.increment(key, delta, initial=initial, fence=fence)
        client.show({"key": key, "value": value}, str(value))
        return DONE

    return client.run(run, change=True)
