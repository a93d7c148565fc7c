"""Groups of commands whose modules are imported when they are wanted."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Final

import click

from haptera.cli.exit_codes import USAGE

#: Options of every client's command that may stand before its name as well, and whether each takes a value.
CLIENT_OPTIONS: Final = {
    "--url": True,
    "--user": True,
    "--password-file": True,
    "--timeout": True,
    "--json": False,
    "--wait": False,
}


class LazyGroup(click.Group):
    """Imports the module of a command when that command is wanted, and no other.

    ``commands_of`` has for each command its line in the help, so that the help need not import it. A command is the
    ``command`` of the module of its name, or of the name that ``modules`` has for it, in ``package``.
    """

    def __init__(
        self, *args: Any, package: str, commands_of: Mapping[str, str], modules: Mapping[str, str], **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self._package = package
        self._lines = commands_of
        self._modules = modules

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._lines)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._lines:
            return None
        module = importlib.import_module(f"{self._package}.{self._modules.get(cmd_name, cmd_name)}")
        command: click.Command = module.command
        command.name = cmd_name
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            from haptera.cli import output

            output.to_standard_error(ctx.get_help())
            ctx.exit(USAGE)
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(self._lines.items()))


class ClientGroup(LazyGroup):
    """Commands of the client. Its options may stand before a command's name, too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        moved = behind_the_command(args)
        if not ctx.resilient_parsing and moved and moved[0].partition("=")[0] in CLIENT_OPTIONS:
            raise click.UsageError("Missing command.", ctx)
        return super().parse_args(ctx, moved)


def behind_the_command(args: list[str]) -> list[str]:
    """Move the client's options that stand before the command's name behind it, where they are read."""
    moved = 0
    while moved < len(args) and args[moved].partition("=")[0] in CLIENT_OPTIONS:
        name, given, _ = args[moved].partition("=")
        moved += 2 if CLIENT_OPTIONS[name] and not given else 1
    return [*args[moved : moved + 1], *args[:moved], *args[moved + 1 :]]
