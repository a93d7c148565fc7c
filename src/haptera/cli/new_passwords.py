"""New passwords of users: from a file, standard input, the environment or a prompt, and never from the command line."""

from __future__ import annotations

import functools
import os
import sys
from typing import TYPE_CHECKING, Final

import click

from haptera.access_rules import PASSWORD_SIZE_MAX
from haptera.cli.library_warnings import warnings_shown
from haptera.cli.standard_input import read_standard_input
from haptera.errors import ConfigurationError
from haptera.transport import read_secret_file

if TYPE_CHECKING:
    from collections.abc import Callable

#: The variable that may hold a new password. It is not that of the password with which a command comes in.
VARIABLE: Final = "HAPTERA_NEW_PASSWORD"
#: Bytes of a password with the end of its line.
_SIZE_MAX: Final = PASSWORD_SIZE_MAX + 2


def password_option(function: Callable[..., int]) -> Callable[..., int]:
    """Add ``--new-password-file``; the command gets its value as ``new_password_file``."""

    @click.option(
        "--new-password-file",
        metavar="FILE",
        help=f"A file with the new password, - for standard input. Else {VARIABLE} has it, or a prompt asks.",
    )
    @functools.wraps(function)
    def wrapper(new_password_file: str | None, **arguments: object) -> int:
        return function(new_password_file=new_password_file, **arguments)

    return wrapper


def new_password(path: str | None, user: str) -> str:
    """The new password of a user: of the file, else of the environment, else of a prompt that asks twice.

    Raises ``UsageError``, which shows nothing of the password.
    """
    if path == "-":
        return _decoded(read_standard_input(_SIZE_MAX + 1), "standard input")
    if path is not None:
        try:
            with warnings_shown():
                content = read_secret_file(path, "password file", size_max=_SIZE_MAX)
        except ConfigurationError as error:
            raise click.UsageError(str(error)) from None
        return _decoded(content, f"the password file {path}")
    given = os.environ.get(VARIABLE)
    if given is not None:
        return _decoded(os.fsencode(given), VARIABLE)
    if not sys.stdin.isatty():
        raise click.UsageError(
            "there is no terminal to ask for the password; --new-password-file FILE, --new-password-file - for "
            f"standard input, or {VARIABLE} give it"
        )
    prompted: str = click.prompt(
        f"New password of {user}", hide_input=True, confirmation_prompt="The same again", err=True
    )
    return prompted


def _decoded(content: bytes, source: str) -> str:
    """The password of some bytes: one line, whose end is not a part of it."""
    line = content.removesuffix(b"\n").removesuffix(b"\r")
    if not line or b"\n" in line or len(line) > PASSWORD_SIZE_MAX:
        raise click.UsageError(f"{source} does not hold one line of 1 to {PASSWORD_SIZE_MAX} bytes")
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise click.UsageError(f"{source} holds something else than UTF-8") from None
