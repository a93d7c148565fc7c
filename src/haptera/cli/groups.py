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
        if not isinstance(command, click.Group):
            _keep_extra_arguments_to_itself(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the arguments begin with. The error for an unknown one names the nearest there is."""
        if not ctx.resilient_parsing and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            from difflib import get_close_matches

            near = get_close_matches(args[0], self.list_commands(ctx), n=1)
            meant = f" Did you mean {near[0]}?" if near else ""
            raise click.UsageError(f"No such command {args[0]!r}.{meant}", ctx)
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            from haptera.cli import output

            output.to_standard_error(ctx.get_help())
            ctx.exit(USAGE)
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(self._lines.items()))


def _keep_extra_arguments_to_itself(command: click.Command) -> None:
    """Have the command count the arguments that it does not take, where click repeats them: one may be a password."""
    if "parse_args" in vars(command):
        return
    parse = command.parse_args

    def parse_args(ctx: click.Context, args: list[str]) -> list[str]:
        takes_all, ctx.allow_extra_args = ctx.allow_extra_args, True
        rest = parse(ctx, args)
        if rest and not takes_all and not ctx.resilient_parsing:
            raise click.UsageError(_too_many(command, len(rest)), ctx)
        return rest

    command.parse_args = parse_args  # type: ignore[method-assign]


def _too_many(command: click.Command, count: int) -> str:
    told = f"{count} argument{'' if count == 1 else 's'} too many, not repeated here, because one may be a secret"
    options = {name for parameter in command.params for name in parameter.opts}
    if "--new-password-file" in options:
        return (
            f"{told}; the prompt, --new-password-file or HAPTERA_NEW_PASSWORD takes a new password, and no argument, "
            "which other users of the machine can read and a shell keeps in its history"
        )
    return f"{told}; quotes keep a text with spaces together"


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
