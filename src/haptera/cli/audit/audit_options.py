"""The parts that the commands of an audit log share."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from haptera import defaults
from haptera.cli import output
from haptera.cli.exit_codes import CANNOT_WRITE, INTERRUPTED, USAGE
from haptera.errors import ConfigurationError, StorageError

if TYPE_CHECKING:
    from haptera.node import AuditVerification

#: The exit codes that both commands have beside those of their own, as their help has them.
OF_AUDIT: Final = {
    USAGE: "usage, or there is no audit log",
    CANNOT_WRITE: "a file cannot be read, or standard output cannot be written",
    INTERRUPTED: "interrupted",
}


def audit_options(function: Callable[..., int]) -> Callable[..., int]:
    """Add the options of these commands to one, which gets the path as ``data_dir``."""

    @click.argument("directory", metavar="[DIR]", required=False)
    @click.option(
        "--data-dir",
        metavar="DIR",
        envvar="HAPTERA_DATA_DIR",
        default=f"./{defaults.DATA_DIRECTORY}",
        show_default=True,
        help="The data directory, or a folder with copies of its audit files. DIR says the same.",
    )
    @click.option("--json", "as_json", is_flag=True, help="Write the result as JSON.")
    @functools.wraps(function)
    def wrapper(directory: str | None, data_dir: str, **arguments: Any) -> int:
        if directory is not None:
            source = click.get_current_context().get_parameter_source("data_dir")
            if source is ParameterSource.COMMANDLINE:
                raise click.UsageError("DIR and --data-dir are given: there is one directory")
            data_dir = directory
        return function(data_dir=data_dir, **arguments)

    return wrapper


def run(work: Callable[[], int]) -> int:
    """Do the work of a command, and return its exit code or that of its error."""
    logging.getLogger("haptera").addHandler(logging.NullHandler())
    try:
        return work()
    except (ConfigurationError, StorageError) as error:
        code = USAGE if isinstance(error, ConfigurationError) or type(error) is StorageError else CANNOT_WRITE
        output.error(str(error), {"name": error.name, "message": str(error)}, code)
        return code
    except KeyboardInterrupt:
        return INTERRUPTED


def described(found: AuditVerification) -> str:
    """The log in a line."""
    counts = f"{output.counted(found.lines, 'line')} in {output.counted(found.files, 'file')}"
    if found.head is None:
        return f"{found.path}: {counts}"
    return f"{found.path}: {counts}, {found.first} to {found.head.sequence}"
