"""What all commands of the client side share: their options, the connection, and what an error ends with."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypedDict, cast

import click

from haptera.cli import output
from haptera.cli.main import INTERRUPTED, close_output
from haptera.cli.warnings import warnings_shown
from haptera.client import Database, connect
from haptera.client.location import has_password
from haptera.error_table import Code
from haptera.errors import ConfigurationError, ConnectionLost, HapteraError, ServerError

DONE, NO, USAGE, CANNOT_CONNECT, REFUSED, FAILED = range(6)
CANNOT_WRITE = 14

ANSWERS_NO = frozenset(
    {Code.KEY_NOT_FOUND, Code.VERSION_MISMATCH, Code.KEY_EXISTS, Code.NOT_AN_INTEGER, Code.INTEGER_OVERFLOW}
)
"""The store answered, and the answer is no: a missing key, a condition that failed, a value that is no number."""

WRONG_ARGUMENT = frozenset(
    {
        Code.INVALID_ARGUMENT,
        Code.MESSAGE_TOO_LARGE,
        Code.INVALID_KEY,
        Code.VALUE_TOO_LARGE,
        Code.TRANSACTION_TOO_LARGE,
    }
)
"""The store will never take this: a key or value outside its limits."""


def exit_code(error: HapteraError) -> int:
    """What the process ends with after ``error``."""
    if isinstance(error, ConfigurationError):
        return USAGE
    if isinstance(error, ConnectionLost):
        said = error.failure  # a server that refuses the connection may say why
        return REFUSED if said is not None and 2000 <= said.code < 3000 else CANNOT_CONNECT
    if isinstance(error, ServerError):
        if error.code in ANSWERS_NO:
            return NO
        if error.code in WRONG_ARGUMENT:
            return USAGE
        if 2000 <= error.code < 3000:
            return REFUSED
    return FAILED


def described(error: BaseException) -> str:
    """One line about an error: ``KEY_NOT_FOUND (4001): the key does not exist: 'k'``."""
    if not isinstance(error, ServerError):
        return str(error)
    text = f"{error.name} ({error.code}): {error.message}"
    details = dict(error.details)
    key = details.pop("key", None)
    if key is not None:
        text += f": {key!r}"
    if details:
        text += f" ({', '.join(f'{name} {value!r}' for name, value in details.items())})"
    return text


class Span(TypedDict, total=False):
    """A range of keys, as far as one was given."""

    prefix: str
    start: str
    end: str
    glob: str


class Client:
    """The options that every command of the client side has, and how its work is run."""

    def __init__(self, url: str | None, timeout: float | None, as_json: bool) -> None:
        if url is not None and has_password(url):
            raise click.UsageError(
                "a URL on a command line may not carry a password, because every user of this machine can read it; "
                "HAPTERA_URL in the environment may (this version of the server has no authentication, and needs none)"
            )
        self.url = url
        self.timeout = timeout
        self.as_json = as_json

    def run(self, work: Callable[[Database], Awaitable[int]]) -> None:
        """Runs ``work`` with the database and ends the process with the exit code that it returns."""
        end_with(lambda: asyncio.run(self._run(work)))

    async def _run(self, work: Callable[[Database], Awaitable[int]]) -> int:
        async with connect(self.url, timeout=self.timeout) as db:
            return await work(db)


def end_with(work: Callable[[], int]) -> NoReturn:
    """Ends the process with the exit code that ``work`` returns, or that stands for what it raises."""
    try:
        with warnings_shown():
            code = work()
        output.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except HapteraError as error:
        output.error_line(described(error))
        code = exit_code(error)
    except output.OutputError as error:
        output.error_line(str(error))
        close_output()
        code = CANNOT_WRITE
    except BrokenPipeError:
        close_output()
        code = DONE
    sys.exit(code)


def client_options(timeout: float = 5.0) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds ``--url``, ``--timeout`` and ``--json`` to a command, which gets a `Client` as ``client``."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @click.option("--url", metavar="URL", help="The store: haptera://host:port or haptera+unix:///path/to/socket.")
        @click.option(
            "--timeout",
            type=click.FloatRange(0, min_open=True),
            default=timeout,
            metavar="SECONDS",
            show_default=True,
            help="The longest that one call may take, reconnecting included.",
        )
        @click.option("--json", "as_json", is_flag=True, help="Write the result as JSON.")
        @functools.wraps(function)
        def wrapper(url: str | None, timeout: float, as_json: bool, **arguments: Any) -> None:
            function(client=Client(url, timeout, as_json), **arguments)

        return wrapper

    return decorate


def range_options(function: Callable[..., None]) -> Callable[..., None]:
    """Adds ``--prefix``, ``--start``, ``--end`` and ``--glob``; the command gets them as ``span``."""

    @click.option("--prefix", metavar="TEXT", help="Keys that begin with this.")
    @click.option("--start", metavar="KEY", help="Keys from this one on.")
    @click.option("--end", metavar="KEY", help="Keys before this one.")
    @click.option("--glob", metavar="PATTERN", help="Keys that match, such as 'user/*/name'.")
    @functools.wraps(function)
    def wrapper(prefix: str | None, start: str | None, end: str | None, glob: str | None, **arguments: Any) -> None:
        given = {"prefix": prefix, "start": start, "end": end, "glob": glob}
        span = cast("Span", {name: text for name, text in given.items() if text is not None})
        function(span=span, **arguments)

    return wrapper
