"""The commands of a shell: its own words, and the commands of `haptera` that work on a served store."""

from __future__ import annotations

from copy import copy
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

import click

from haptera.cli import output
from haptera.cli.client_command import Client, client_options, fence_option
from haptera.cli.exit_codes import DONE
from haptera.cli.groups import CLIENT_OPTIONS, ClientGroup
from haptera.cli.key_names import KEY
from haptera.cli.main import COMMANDS, MODULES
from haptera.cli.shell.collected import Collected
from haptera.cli.shell.examples import example_of
from haptera.cli.txn import transact

if TYPE_CHECKING:
    from haptera.cli.shell.shell_session import ShellSession

#: The own words of the shell, each with its line in the help.
WORDS: Final = {
    "help": "List the commands, or show one with an example.",
    "multi": "Collect the following commands for one transaction.",
    "compare": "Add a condition to the transaction.",
    "otherwise": "Collect operations for where a condition does not hold.",
    "exec": "Make the collected operations as one change.",
    "discard": "Give the transaction up.",
    "unwatch": "End a watch, or all of them.",
    "output": "Show or choose the form of results.",
    "timing": "Say after each command how long it took.",
    "exit": "Leave the shell, as Ctrl-D does.",
    "quit": "Leave the shell, as Ctrl-D does.",
}

#: Commands of `haptera` without a place in a shell: they serve, they work on the directory of a store that is not
#: served, or they measure by connections of their own.
ELSEWHERE: Final = frozenset(
    {"serve", "shell", "restore", "storage", "audit", "pitr", "dev-certs", "bench", "decode", "completion"}
)

#: Options that all lines of a shell share, and that so go with `haptera shell`.
SHARED: Final = frozenset(CLIENT_OPTIONS) - {"--json"}

#: The fields that a condition may be about.
_FIELDS: Final = ("version", "value", "exists", "lease")
_TRUTHS: Final = {"true": True, "false": False}


class ShellGroup(ClientGroup):
    """The commands of a shell."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        own = _OWN.get(cmd_name)
        return super().get_command(ctx, cmd_name) if own is None else own

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of a line. Raises ``UsageError`` without the usage of the group, which is no command."""
        if not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None:
            if args[0] in ELSEWHERE:
                raise click.UsageError(f"{args[0]} is run outside of a shell, as `haptera {args[0]}`")
            near = get_close_matches(args[0], self.list_commands(ctx), n=1)
            meant = f"; {near[0]} is one" if near else ""
            raise click.UsageError(f"there is no command {output.shown(args[0])}{meant}; help lists the commands")
        return super().resolve_command(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage("", "COMMAND [ARGUMENT]…")


@click.group(
    cls=ShellGroup,
    package="haptera.cli",
    commands_of={name: line for name, line in COMMANDS.items() if name not in ELSEWHERE} | WORDS,
    modules=MODULES,
    add_help_option=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
def group() -> None:
    """The commands of the shell. `help COMMAND` shows one with an example."""


@click.command()
@click.argument("words", nargs=-1, metavar="[COMMAND]...")
@click.pass_context
def _help(context: click.Context, words: tuple[str, ...]) -> int:
    """List the commands, or show COMMAND with an example."""
    shown = context.parent
    assert shown is not None
    for name in words:
        within = shown.command
        found = within.get_command(shown, name) if isinstance(within, click.Group) else None
        if found is None:
            raise click.UsageError(f"there is no command {output.shown(' '.join(words))}")
        shown = click.Context(_without_shared_options(found), info_name=name, parent=shown)
    output.line(shown.get_help())
    example = example_of(words) if words else None
    if example is not None:
        output.line(f"\nExample:\n  {example}")
    return DONE


def _without_shared_options(command: click.Command) -> click.Command:
    """The command as the help of a shell shows it."""
    shown = copy(command)
    shown.params = [each for each in command.params if not SHARED.intersection(each.opts)]
    return shown


@click.command()
@click.pass_obj
def _multi(session: ShellSession) -> int:
    """Collect the following commands until `exec` sends them as one transaction, or `discard` gives it up.

    All of its operations are made, or none. Each is a command about keys that are named; ranges take no part. `compare`
    adds a condition, and the operations behind `otherwise` are made where one does not hold.
    """
    if session.transaction is not None:
        raise click.UsageError("a transaction is open: exec sends it, and discard gives it up")
    session.transaction = Collected()
    return DONE


@click.command(context_settings={"ignore_unknown_options": True})  # a VALUE may begin with a dash
@click.argument("key", type=KEY)
@click.argument("field", type=click.Choice(_FIELDS))
@click.argument("operator", type=click.Choice(["=", "!=", "<", ">"]))
@click.argument("operand", metavar="VALUE")
@click.pass_obj
def _compare(session: ShellSession, key: str, field: str, operator: str, operand: str) -> int:
    """Have `exec` make the operations only if this holds: the version of KEY (0: no entry), its value, whether it
    exists (true or false), or its lease (0: none).
    """
    collected = _open_transaction(session)
    value: object = operand
    if field == "value":
        value = operand.encode(errors="surrogateescape")
    elif field == "exists":
        value = _TRUTHS.get(operand)
        if value is None:
            raise click.UsageError("exists is compared with true or false")
    else:
        value = _number(operand)
    collected.compare(key, field, operator, value)
    return DONE


@click.command()
@click.pass_obj
def _otherwise(session: ShellSession) -> int:
    """Collect the following operations for where a condition does not hold. `exec` makes them in the place of the ones
    before this line.
    """
    _open_transaction(session).turn()
    return DONE


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise click.UsageError(f"{output.shown(text)} is no whole number") from None


@click.command()
@fence_option
@client_options()
@click.pass_obj
def _exec(session: ShellSession, fence: int | None, client: Client) -> int:
    """Make the collected operations as one change, if all conditions hold.

    The result is that of `haptera txn`: "then" and the new version, if there is one, and a line for each operation; or
    "otherwise" with the operations behind it, where a condition does not hold. Exit code 1:
    a condition does not hold, or an operation failed.
    """
    collected = _open_transaction(session)
    if collected.failed is not None:
        raise click.UsageError(f"line {collected.failed} of the transaction was not taken; discard gives it up")
    session.transaction = None
    return client.run(lambda db: transact(db, collected.parts, fence, client), change=True)


@click.command()
@click.pass_obj
def _discard(session: ShellSession) -> int:
    """Give up the transaction. Nothing was sent."""
    _open_transaction(session)
    session.transaction = None
    return DONE


def _open_transaction(session: ShellSession) -> Collected:
    if session.transaction is None:
        raise click.UsageError("there is no transaction; multi begins one")
    return session.transaction


@click.command()
@click.argument("number", type=click.IntRange(1), required=False)
@click.pass_obj
def _unwatch(session: ShellSession, number: int | None) -> int:
    """End the watch NUMBER, or without a number all of them."""
    if session.watches is None:
        raise click.UsageError("watches go on beside a prompt alone")
    session.watches.end(number)
    return DONE


@click.command()
@click.argument("form", type=click.Choice([*output.FORMS, "auto"]), required=False)
@click.pass_obj
def _output(session: ShellSession, form: str | None) -> int:
    """Choose the form of results, or show the present one. auto is tables on a terminal, and else plain lines."""
    if form is None:
        output.line(session.form or "auto")
    else:
        session.form = None if form == "auto" else form
    return DONE


@click.command()
@click.argument("wanted", type=click.Choice(["on", "off"]))
@click.pass_obj
def _timing(session: ShellSession, wanted: str) -> int:
    """Say after each command how many milliseconds it took."""
    session.timing = wanted == "on"
    return DONE


@click.command()
@click.pass_obj
def _exit(session: ShellSession) -> int:
    """Leave the shell. A transaction that was not sent is given up, and watches end."""
    session.left = True
    return DONE


_OWN: Final[dict[str, click.Command]] = {
    "help": _help,
    "multi": _multi,
    "compare": _compare,
    "otherwise": _otherwise,
    "exec": _exec,
    "discard": _discard,
    "unwatch": _unwatch,
    "output": _output,
    "timing": _timing,
    "exit": _exit,
    "quit": _exit,
}
