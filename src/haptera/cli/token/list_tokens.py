"""``haptera token list``"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from haptera.cli.administration import joined, show_rows
from haptera.cli.client_command import Client, client_options
from haptera.cli.exit_codes import DONE

if TYPE_CHECKING:
    from haptera.client import Database


@click.command()
@client_options()
def command(client: Client) -> int:
    """List the tokens in the order of their names. A token that has expired stays until another one is made.

    A line for each: its user, tab, the time at which it expires or never, tab, its roles with commas between them. The
    word ended stands before a time that is over, by the clock of this machine.
    """

    async def run(db: Database) -> int:
        found = [
            {
                "user": token.name,
                "expires_at": token.expires_at,
                "ended": token.expires_at is not None and token.expires_at <= time.time(),
                "roles": token.roles,
            }
            async for token in db.admin.tokens()
        ]
        show_rows(client, ["user", "expires", "roles"], found, _cells)
        return DONE

    return client.run(run)


def _cells(token: dict[str, Any]) -> list[str]:
    expires_at = token["expires_at"]
    expires = "never" if expires_at is None else _time(expires_at)
    return [token["user"], f"ended {expires}" if token["ended"] else expires, joined(token["roles"])]


def _time(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):  # beyond the year 9999
        return f"{seconds:g}"
