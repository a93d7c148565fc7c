"""``haptera shell``"""

from __future__ import annotations

import sys

import click

from haptera.cli import output
from haptera.cli.client_command import Client, client_options
from haptera.cli.exit_codes import DONE
from haptera.cli.open_store import OpenStore


@click.command()
@click.argument("address", metavar="[URL]", required=False)
@click.option(
    "--output",
    "form",
    type=click.Choice(output.FORMS),
    help="The form of results. [tables on a terminal, else plain lines]",
)
@client_options()
def command(address: str | None, form: str | None, client: Client) -> int:
    """Run commands that are typed, or come line by line from standard input, over one connection.

    The commands are those of `haptera`, without its name: `set greeting "hello there"`. `help` lists them, and
    `help COMMAND` shows one with an example. On a terminal Tab completes commands, options and keys, Ctrl-C cancels the
    command that runs, and Ctrl-D leaves. `multi` collects commands that `exec` sends as one transaction, and `watch`
    goes on beside the prompt. A connection that is lost is made again.

    Words are parted by blanks. A word in '…' or "…" may have blanks and line ends, and $'…' has the escapes that
    `scan` writes. A line that begins with # is passed over.

    Lines that are typed are kept in haptera/shell_history under $XDG_STATE_HOME, else under ~/.local/state. A line that
    begins with a blank is not, and no line with a password.

    From a pipe or a file all lines are run, and the exit code is that of the first one that failed. A line that finds
    no server ends the run.
    """
    if address is not None:
        client = client.at(address)
    form = "json" if client.as_json else form
    with OpenStore(client) as store:
        from haptera.cli.shell.shell_session import ShellSession

        session = ShellSession(store, form)
        code = Client.on_open_store(store, form == "json").run(session.greet)
        if code != DONE:
            return code
        if sys.stdin.isatty() and sys.stdout.isatty():
            from haptera.cli.shell.prompting import interact

            return interact(session)
        from haptera.cli.shell.script import run_script

        return run_script(session)
