"""What all commands of the client side share: their options, the connection, and how their work is run."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any, TypedDict, cast

import click

from haptera.cli import output
from haptera.cli.codes import CANNOT_WRITE, INTERRUPTED
from haptera.cli.failures import Target, tell
from haptera.cli.numbers import Number
from haptera.cli.warnings import warnings_shown
from haptera.client import Database, connect
from haptera.client.location import default_url, has_password, locate
from haptera.errors import HapteraError


class Span(TypedDict, total=False):
    """A range of keys, as far as one was given."""

    prefix: str
    start: str
    end: str
    glob: str


class Client:
    """The options that every command of the client side has, and how its work is run."""

    def __init__(self, url: str | None, timeout: float | None, as_json: bool, wait: bool = False) -> None:
        if url is not None and has_password(url):
            raise click.UsageError(
                "a URL on a command line may not carry a password, because every user of this machine can read it; "
                "HAPTERA_URL in the environment may (this version of the server has no authentication, and needs none)"
            )
        self.url = url
        self.timeout = timeout
        self.as_json = as_json
        self.wait = wait
        self._target: Target | None = None

    def run(self, work: Callable[[Database], Awaitable[int]], *, change: bool = False) -> int:
        """Runs ``work`` with the database, and returns the exit code that it returns, or that its error stands for.

        With ``change`` the work changes the store. It is not begun where its result certainly cannot be written, and
        the command says what is known of the change however it ends.
        """
        if change:
            output.require()
        self._target = None
        try:
            with warnings_shown():
                code = asyncio.run(self._run(work))
            output.flush()
        except HapteraError as error:
            return tell(error, change=change, target=self._target)
        except output.OutputError as error:
            if not change:
                raise
            message = f"the change was applied, but {error}"
            output.error(message, {"message": message, "outcome": "applied"}, CANNOT_WRITE)
            return CANNOT_WRITE
        except KeyboardInterrupt:
            if change:
                told = {"message": "interrupted", "outcome": "unknown"}
                output.error("interrupted; the change may have been applied", told, INTERRUPTED)
            return INTERRUPTED
        return code

    async def _run(self, work: Callable[[Database], Awaitable[int]]) -> int:
        async with connect(self.url, timeout=self.timeout, wait=self.wait) as db:
            try:
                return await work(db)
            finally:
                self._target = self.target(db)

    def target(self, db: Database) -> Target:
        """The store of this command, as its errors name it."""
        url = db.reached or locate(default_url() if self.url is None else self.url).shown
        return Target(url, answered=db.reached is not None)


def run_shown(work: Callable[[], int]) -> int:
    """Runs what is no call to a database: its warnings and errors are told as those of one are."""
    try:
        with warnings_shown():
            return work()
    except HapteraError as error:
        return tell(error)
    except KeyboardInterrupt:
        return INTERRUPTED


def client_options(
    timeout: float = 5.0, *, may_wait: bool = True
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Adds ``--url``, ``--timeout`` and ``--json`` to a command, which gets a `Client` as ``client``.

    ``--wait`` is there too, but for a command that dials by itself.
    """
    wait = click.option("--wait", is_flag=True, help="Wait for a server that cannot be reached, up to the timeout.")

    def decorate(function: Callable[..., int]) -> Callable[..., int]:
        @click.option("--url", metavar="URL", help="The store: haptera://host:port or haptera+unix:///path/to/socket.")
        @click.option(
            "--timeout",
            type=Number(0, min_open=True),
            default=timeout,
            metavar="SECONDS",
            show_default=True,
            help="The longest that one call may take, reconnecting included.",
        )
        @click.option("--json", "as_json", is_flag=True, help="Write the result as JSON.")
        @functools.wraps(function)
        def wrapper(url: str | None, timeout: float, as_json: bool, wait: bool = False, **arguments: Any) -> int:
            return function(client=Client(url, timeout, as_json, wait), **arguments)

        return wait(wrapper) if may_wait else wrapper

    return decorate


def range_options(function: Callable[..., int]) -> Callable[..., int]:
    """Adds ``--prefix``, ``--start``, ``--end`` and ``--glob``; the command gets them as ``span``."""

    @click.option("--prefix", metavar="TEXT", help="Keys that begin with this.")
    @click.option("--start", metavar="KEY", help="Keys from this one on.")
    @click.option("--end", metavar="KEY", help="Keys before this one.")
    @click.option("--glob", metavar="PATTERN", help="Keys that match, such as 'user/*/name'.")
    @functools.wraps(function)
    def wrapper(prefix: str | None, start: str | None, end: str | None, glob: str | None, **arguments: Any) -> int:
        given = {"prefix": prefix, "start": start, "end": end, "glob": glob}
        span = cast("Span", {name: text for name, text in given.items() if text is not None})
        return function(span=span, **arguments)

    return wrapper
