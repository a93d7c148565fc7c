"""The end of every command.

A command returns its exit code (`haptera.cli.exit_codes`) or raises; docs/command-line.md lists the meanings.
"""

from __future__ import annotations

import errno
import traceback
from collections.abc import Callable, Sequence
from typing import Final

import click

from haptera.cli import output
from haptera.cli.exit_codes import CANNOT_WRITE, DONE, FAILED, INTERRUPTED
from haptera.cli.extras import how_to_install

#: An `OSError` with one of these is of standard output: click and rich write to it themselves.
OUTPUT_ERRORS: Final = frozenset({errno.EBADF, errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EPIPE})


def ended(run: Callable[[], object], args: Sequence[str]) -> int:
    """Run the command ``args`` by ``run``, and give the exit code for its result or its exception."""
    try:
        result = run()
        output.flush()
    except output.OutputError as error:
        return _not_written(error)
    except OSError as error:
        if error.errno in OUTPUT_ERRORS:
            return _not_written(output.output_error(error))
        return _broken()
    except click.ClickException as error:
        _tell_usage(error)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except ModuleNotFoundError as error:
        advice = how_to_install(error, args)
        if advice is None:
            return _broken()
        message, code = advice
        output.error(message, {"message": message}, code)
        return code
    except Exception:
        return _broken()
    return result if isinstance(result, int) else DONE


def _not_written(error: Exception) -> int:
    """End a command whose result standard output did not take; a reader that has had enough is no error."""
    if isinstance(error, output.ReaderGone):
        return DONE
    output.error(str(error), {"message": str(error)}, CANNOT_WRITE)
    return CANNOT_WRITE


def _broken() -> int:
    """A mistake of this program, which must not look like an answer of the store."""
    output.to_standard_error(traceback.format_exc().rstrip())
    return FAILED


def _tell_usage(error: click.ClickException) -> None:
    """Report a mistake in the arguments as click does, but show no argument to a terminal as it came."""
    message = error.format_message()
    if isinstance(error, click.MissingParameter):  # the choices have a line each
        message = " ".join(message.split())
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is None:
        output.error(message, {"message": message}, error.exit_code)
        return
    output.error(
        message,
        {"message": message},
        error.exit_code,
        before=f"{context.get_usage()}\nTry '{context.command_path} -h' for help.\n",
    )
