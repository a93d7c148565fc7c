"""The table of the commands, put together from the rows of their modules, and how a command is found in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.dialects.resp import (
    compare_and_set,
    connection_commands,
    counter_commands,
    expiry_commands,
    key_commands,
    object_commands,
    range_commands,
    scan_commands,
    server_commands,
    silenced_replies,
    slow_log_commands,
    string_commands,
    subscription_commands,
    tracking_commands,
    transaction,
)
from haptera.dialects.resp.client_commands import client_command
from haptera.dialects.resp.command_commands import command_row
from haptera.dialects.resp.error_words import unknown_command, unknown_subcommand, wrong_arity

if TYPE_CHECKING:
    from haptera.dialects.resp.steps import Command

_ROWS: Final[tuple[Command, ...]] = (
    *string_commands.ROWS,
    *range_commands.ROWS,
    *counter_commands.ROWS,
    *key_commands.ROWS,
    *expiry_commands.ROWS,
    *scan_commands.ROWS,
    *compare_and_set.ROWS,
    *transaction.ROWS,
    *subscription_commands.ROWS,
    *object_commands.ROWS,
    *connection_commands.ROWS,
    *server_commands.ROWS,
    *slow_log_commands.ROWS,
    client_command([*tracking_commands.PARTS, silenced_replies.PART]),
)
#: The rows by the commands' names in lower case.
BY_NAME: Final[dict[str, Command]] = {row.name: row for row in _ROWS}
BY_NAME["command"] = command_row(BY_NAME)
#: The rows by the names as clients write them, in lower or in upper case.
COMMANDS: Final[dict[bytes, Command]] = {
    spelt: row for name, row in BY_NAME.items() for spelt in (name.encode(), name.upper().encode())
}
#: The commands that are done together where several stand in a row, by their names as in `COMMANDS`, with the number of
#: their arguments; and those of them that change the store.
RUNS: Final[dict[bytes, int]] = {name: abs(row.arity) for name, row in COMMANDS.items() if row.run is not None}
WRITE_RUNS: Final = {name: count for name, count in RUNS.items() if "write" in COMMANDS[name].flags}
#: The first words of lines of HTTP. They come from a browser that was led to believe that this is a web server: such a
#: connection is closed, as by Redis, before the lines behind them are taken for commands.
HTTP_WORDS: Final = frozenset({b"post", b"host:"})


def find(arguments: list[bytes]) -> Command | bytes:
    """The command that some arguments call, or the error: it is unknown, or takes another number of arguments."""
    command = COMMANDS.get(arguments[0]) or COMMANDS.get(arguments[0].lower())
    if command is None:
        return unknown_command(arguments)
    if command.subcommands is not None and len(arguments) > 1:
        part = command.subcommands.get(arguments[1].decode("latin-1").lower())
        if part is None:
            return unknown_subcommand(command.name, arguments[1])
        command = part
    return command if command.takes(len(arguments)) else wrong_arity(command.name)
