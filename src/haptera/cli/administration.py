"""The parts that the commands of users, roles, grants and tokens share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from haptera.access_rules import PERMISSIONS, TOKEN_PREFIX
from haptera.cli import output
from haptera.cli.exit_codes import DONE
from haptera.cli.parameter_type import ParameterType
from haptera.errors import Code, ServerError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from haptera.cli.client_command import Client
    from haptera.client import Administration, Database
    from haptera.errors import HapteraError

#: Why a user with user_admin is refused a change although it may change users.
GIVES_NO_MORE: Final = (
    "no user gives or takes more than it has: one with user_admin alone changes no user, token or role that has this "
    "permission; one that has it itself can, and so can an administrator"
)


def user_argument(context: click.Context, parameter: click.Parameter, name: str | None) -> str | None:
    """Take the argument of a command that changes users, and no token. Raises ``UsageError``."""
    if name is not None and name.startswith(TOKEN_PREFIX):
        shown = name.removeprefix(TOKEN_PREFIX)
        raise click.UsageError(
            f"{name} is a token and no user: its secret and its roles stay as they are; `haptera token revoke {shown}` "
            "ends it, and `haptera token create` makes one"
        )
    return name


def change_step(error: HapteraError) -> str:
    """The next step where a change of users is refused although its caller may change users; else empty."""
    if not isinstance(error, ServerError) or error.code != Code.PERMISSION_DENIED:
        return ""
    return "" if error.details.get("permission") == "user_admin" else GIVES_NO_MORE


class PermissionList(ParameterType[tuple[str, ...]]):
    """Permissions with commas between them, each once."""

    name = "permissions"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        given = tuple(str(value).split(","))
        for each in given:
            if each not in PERMISSIONS:
                self.fail(f"{each!r} is none of {', '.join(PERMISSIONS)}.", param, ctx)
        return tuple(dict.fromkeys(given))


def change(
    client: Client, made: Callable[[Administration], Awaitable[bool | None]], done: str, fields: dict[str, Any]
) -> int:
    """Make a change, and write what was done: ``done``, or ``unchanged`` where nothing was to be done."""

    async def run(db: Database) -> int:
        changed = await made(db.admin) is not False
        client.show({**fields, "changed": changed}, done if changed else "unchanged")
        return DONE

    return client.run(run, change=True, step=change_step)


def show_rows(
    client: Client, columns: Sequence[str], rows: Iterable[dict[str, Any]], cells: Callable[[dict[str, Any]], list[str]]
) -> None:
    """Write a list: a table for a terminal, lines with tabs for a pipe, and a document a line with ``--json``."""
    if client.as_json:
        for row in rows:
            output.json_line(row)
    elif output.as_tables():
        output.table(columns, map(cells, rows))
    else:
        for row in rows:
            output.line("\t".join(cells(row)))


def joined(names: Iterable[str]) -> str:
    """Join names for one cell; a dash where there are none."""
    return ",".join(names) or "-"
