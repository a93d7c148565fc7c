"""The entry point of the command line: its commands, and how one of them is run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final, NoReturn

from haptera import defaults
from haptera.cli import standard_streams
from haptera.cli.exit_codes import OF_CLIENTS, listed
from haptera.cli.extras import how_to_install

try:
    import click

    from haptera.cli.groups import ClientGroup
except ModuleNotFoundError as _missing:  # the base install
    _advice = how_to_install(_missing, sys.argv[1:])
    if _advice is None:
        raise
    from haptera.cli import output

    standard_streams.secure()
    with output.errors_as_json("--json" in sys.argv):
        output.error(_advice[0], {"message": _advice[0]}, _advice[1])
    sys.exit(_advice[1])

#: The commands in the order of ``haptera --help``, each with its line there, so that the help need not import it. A
#: command is the ``command`` of the module of its name under ``haptera.cli``.
COMMANDS: Final = {
    "serve": "Serve a store from a data directory.",
    "shell": "Type commands, with completion and a history.",
    "get": "Write the values of keys.",
    "set": "Store a value under a key.",
    "del": "Delete keys.",
    "exists": "Write whether a key exists.",
    "rename": "Move a value to another key.",
    "clear": "Delete all keys of a range.",
    "scan": "List the entries of a range, in key order.",
    "watch": "Follow changes as they happen.",
    "history": "List the versions of a key.",
    "revert": "Give a key the value of an older version.",
    "diff": "List what differs between two revisions.",
    "count": "Count the keys of a range.",
    "txn": "Make several changes as one, if conditions hold.",
    "incr": "Add to the number that a key holds.",
    "lock": "Run a command while holding a lock.",
    "lease": "Grant leases, keep them alive, list and end them.",
    "ttl": "Write how long a key has still to live.",
    "expire": "Give a key a time to live.",
    "persist": "Have a key not expire any more.",
    "import": "Store the rows of a file: TSV, CSV, JSON lines.",
    "export": "Write entries to a file that import reads.",
    "backup": "Make backups of a store, and verify them.",
    "restore": "Make a data directory of a backup.",
    "user": "Add users, remove them, give them roles.",
    "role": "Add roles and remove them.",
    "grant": "Let roles do something to keys, or no longer.",
    "token": "Make tokens for programs, and revoke them.",
    "passwd": "Change a password.",
    "whoami": "Show the user that a command comes in as.",
    "status": "Show the version, the state and the health of a node.",
    "doctor": "Name the weak settings of a node and of its directory.",
    "metrics": "Show the metrics of a node, once or repeatedly.",
    "snapshot": "Make a snapshot of the store.",
    "maintenance": "Close a store to changes for a while.",
    "storage": "Check a data directory, look into it, save what is whole.",
    "audit": "Check the audit log of a node, and write its head.",
    "pitr": "Recover a store as it was at a revision or a time.",
    "dev-certs": "Make certificates for tests of TLS.",
    "bench": "Measure a store, or the messaging library.",
    "services": "List the services of a server, and their methods.",
    "call": "Call a method of any service.",
    "decode": "Show the frames in a recording of a connection.",
    "completion": "Write the completion script of a shell.",
}

#: The modules of commands whose names are words of Python, or none of its names.
MODULES: Final = {"del": "delete", "import": "import_file", "dev-certs": "dev_certs"}


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from haptera.version import __version__

        click.echo(f"haptera {__version__}")
        ctx.exit()


_HELP: Final = f"""Haptera: a durable key-value database for operational state.

`haptera serve` serves a store, `storage`, `audit` and `pitr` work on the directory of one, and the other commands are
its clients; `dev-certs` makes files for tests. A client finds its store by --url, else by HAPTERA_URL, else it takes
the node that this user or root runs in this directory, else {defaults.URL}. That node takes this user
without a login, so a user or a password is refused there: --url says where to log in. The options --url, --user,
--password-file, --timeout, --wait and --json may stand before the command's name, too.

{listed(OF_CLIENTS)}
"""


@click.group(
    cls=ClientGroup,
    package="haptera.cli",
    commands_of=COMMANDS,
    modules=MODULES,
    help=_HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version."
)
def group() -> None:
    """The command line."""


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run one command with ``args`` (by default the process's own) and end the process with its exit code."""
    standard_streams.secure()
    code = _run(list(sys.argv[1:] if args is None else args))
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            standard_streams.silence(stream)
    sys.exit(code)


def _run(args: list[str]) -> int:
    from haptera.cli import output
    from haptera.cli.endings import ended

    options = args[: args.index("--")] if "--" in args else args
    with output.errors_as_json("--json" in options):
        return ended(lambda: group.main(args=args, prog_name="haptera", standalone_mode=False), args)
