"""The entry point of the command line, and how every command ends.

Exit codes: 0 done; 1 the answer is no (missing key, failed condition); 2 usage; 3 cannot connect; 4 refused; 5 the
server failed; 130 interrupted. `serve` has its own from 10 on.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

try:
    import click
except ModuleNotFoundError:  # pragma: no cover - the base install
    sys.exit("haptera: the command line needs the package click: pip install 'haptera[cli]'")

INTERRUPTED = 130
BROKEN = 5
"""A mistake of this program: of the codes for no answer, the one that says that it is not the caller's."""

MODULES = {
    "serve": "serve",
    "get": "get",
    "set": "set",
    "del": "delete",
    "scan": "scan",
    "count": "count",
    "incr": "incr",
    "import": "import_file",
    "status": "status",
    "metrics": "metrics",
    "bench": "bench",
}
"""The commands in the order of the help, and the module under ``haptera.cli`` whose ``command`` each is."""

SUMMARIES = {
    "serve": "Serve a store from a data directory.",
    "get": "Write the value of a key.",
    "set": "Store a value under a key.",
    "del": "Delete keys.",
    "scan": "List the entries of a range, in key order.",
    "count": "Count the keys of a range.",
    "incr": "Add to the number that a key holds.",
    "import": "Store the rows of a TSV file.",
    "status": "Show what the node says of itself.",
    "metrics": "Show what the node counts and measures, once or again and again.",
    "bench": "Measure a store, or the messaging library.",
}
"""One line for each in ``haptera --help``, so that the help need not import them all."""


class LazyGroup(click.Group):
    """Imports the module of a command when that command is wanted, and no other."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = MODULES.get(cmd_name)
        if module is None:
            return None
        command = importlib.import_module(f"haptera.cli.{module}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(SUMMARIES.items()))


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from haptera.version import __version__

        click.echo(f"haptera {__version__}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version."
)
def group() -> None:
    """Haptera: a durable key-value database for operational state.

    `haptera serve` serves a store; the other commands are its clients. Where none is named with --url, they use
    HAPTERA_URL, else the node that runs in this directory, else haptera://127.0.0.1:7457.

    Exit codes: 0 done, 1 the answer is no (missing key, failed condition), 2 usage, 3 cannot connect, 4 refused,
    5 the server failed, 14 the result cannot be written.
    """


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Runs one command with ``args`` (by default those of the process) and ends the process with its exit code."""
    try:
        result = group.main(args=args, prog_name="haptera", standalone_mode=False)
        code = result if isinstance(result, int) else 0
        sys.stdout.flush()
    except click.UsageError as error:
        error.show()
        code = error.exit_code
    except click.ClickException as error:
        click.echo(f"haptera: {error.format_message()}", err=True)
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except BrokenPipeError:
        close_output()
        code = 0
    except Exception:  # a mistake of this program, which must not look like "the answer is no"
        traceback.print_exc()
        code = BROKEN
    sys.exit(code)


def close_output() -> None:
    """Points standard output at nothing: what is still buffered cannot be written, and the process's end would try."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        pass
