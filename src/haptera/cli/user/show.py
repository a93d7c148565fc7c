"""``haptera user show``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from haptera.cli.administration import show_rows, user_argument
from haptera.cli.client_command import Client, client_options
from haptera.cli.exit_codes import DONE
from haptera.cli.user.list_users import COLUMNS, user_cells, user_fields

if TYPE_CHECKING:
    from haptera.client import Database, UserQuota

#: The parts of a quota by their names in the output, in order.
_PARTS: Final = {"keys": "keys", "bytes": "size", "watches": "watches", "leases": "leases"}


@click.command()
@click.argument("name", callback=user_argument)
@client_options()
def command(name: str, client: Client) -> int:
    """Show the user NAME, as `haptera user list` does, and its quota.

    The quota is the last field of the line: of each number that it has, how much is used and how much there may be,
    such as keys=3/100,bytes=120/65536; a dash for a user without one. Exit code 1: there is no such user.
    """

    async def run(db: Database) -> int:
        user, quota = await db.admin.user(name), await db.admin.quota(name)
        fields = {**user_fields(user), "quota": None if quota is None else _fields(quota)}
        show_rows(client, [*COLUMNS, "quota"], [fields], lambda user: [*user_cells(user), _cell(user["quota"])])
        return DONE

    return client.run(run)


def _fields(quota: UserQuota) -> dict[str, Any]:
    limit, used = msgspec.structs.asdict(quota.limit), msgspec.structs.asdict(quota.used)
    return {name: {"limit": limit[part], "used": used[part]} for name, part in _PARTS.items()}


def _cell(quota: dict[str, Any] | None) -> str:
    parts = [] if quota is None else [part for part in quota.items() if part[1]["limit"] is not None]
    return ",".join(f"{name}={part['used']}/{part['limit']}" for name, part in parts) or "-"
