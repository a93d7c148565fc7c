"""The parts that all commands of the client side share: their options, the connection, and how their work is run."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypedDict, cast

import click

from haptera.cli import output
from haptera.cli.exit_codes import CANNOT_WRITE, INTERRUPTED
from haptera.cli.failures import EFFECTS, Target, tell
from haptera.cli.library_warnings import warnings_shown
from haptera.cli.numbers import Number
from haptera.client import Database, connect, connect_peer, default_url, has_password, locate
from haptera.errors import HapteraError, Outcome
from haptera.key_rules import VERSION_MAX

if TYPE_CHECKING:
    from haptera.peer import Peer


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
        self._databases: list[Database] = []
        self._dialled: str | None = None  # the URL of connections without a database
        self._welcomed = False

    def connect(self) -> Database:
        """The store of this command."""
        db = connect(self.url, timeout=self.timeout, wait=self.wait)
        self._databases.append(db)
        return db

    @asynccontextmanager
    async def connect_peer(self, url: str | None = None) -> AsyncIterator[Peer]:
        """A connection for calls that a database does not make: to ``url``, else to the store of this command."""
        url = self.url if url is None else url
        self._dialled = locate(default_url() if url is None else url).shown
        async with connect_peer(url, timeout=self.timeout, wait=self.wait) as peer:
            self._welcomed = True
            yield peer

    def show(self, fields: dict[str, Any], text: str) -> None:
        """Write a result: with ``--json`` its fields, else a line of text."""
        if self.as_json:
            output.json_line(fields)
        else:
            output.line(text)

    @property
    def target(self) -> Target | None:
        """The server of this command, as its errors name it; None where it was not looked for."""
        reached = next((db.reached for db in self._databases if db.reached is not None), None)
        if reached is not None:
            return Target(reached, answered=True)
        if self._dialled is not None:
            return Target(self._dialled, answered=self._welcomed)
        if self._databases:
            return Target(locate(default_url() if self.url is None else self.url).shown, answered=False)
        return None

    def run(self, work: Callable[[Database], Awaitable[int]], *, change: bool = False) -> int:
        """Run ``work`` with the database, and return the exit code that it returns, or that its error stands for.

        With ``change`` the work changes the store. It is not begun where its result certainly cannot be written, and
        the command tells the change's outcome however it ends.
        """
        if change:
            output.require()
        try:
            with warnings_shown():
                code = asyncio.run(self._run(work))
            output.flush()
        except HapteraError as error:
            return tell(error, change=change, target=self.target)
        except output.OutputError as error:
            if not change:
                raise
            message = f"the change was applied, but {error}"
            output.error(message, {"message": message, "outcome": "applied"}, CANNOT_WRITE)
            return CANNOT_WRITE
        except KeyboardInterrupt:
            if change:
                sent = any(db.connected_once for db in self._databases[-1:])
                outcome: Outcome = "unknown" if sent else "not_applied"
                effect = EFFECTS[outcome] or "; nothing was changed"
                output.error(f"interrupted{effect}", {"message": "interrupted", "outcome": outcome}, INTERRUPTED)
            return INTERRUPTED
        return code

    async def _run(self, work: Callable[[Database], Awaitable[int]]) -> int:
        async with self.connect() as db:
            return await work(db)

    def run_shown(self, work: Callable[[], int]) -> int:
        """Run something else than calls to a database, and report its warnings and errors in the same way."""
        try:
            with warnings_shown():
                return work()
        except HapteraError as error:
            return tell(error, target=self.target)
        except KeyboardInterrupt:
            return INTERRUPTED


def client_options(timeout: float = 5.0) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Add ``--url``, ``--timeout``, ``--json`` and ``--wait`` to a command, which gets a `Client` as ``client``."""

    def decorate(function: Callable[..., int]) -> Callable[..., int]:
        @click.option("--wait", is_flag=True, help="Wait for a server that cannot be reached, up to the timeout.")
        @click.option(
            "--url",
            metavar="URL",
            help="The store: haptera://host:port, hapteras://host:port (TLS) or haptera+unix:///path/to/socket.",
        )
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
        def wrapper(url: str | None, timeout: float, as_json: bool, wait: bool, **arguments: Any) -> int:
            return function(client=Client(url, timeout, as_json, wait), **arguments)

        return wrapper

    return decorate


def fence_option(function: Callable[..., int]) -> Callable[..., int]:
    """Add ``--fence`` to a command that changes keys, which gets the token as ``fence``."""
    return click.option(
        "--fence",
        type=click.IntRange(1, VERSION_MAX),
        metavar="TOKEN",
        help="Only while the lock of this token is held, as `haptera lock` has it in HAPTERA_LOCK_TOKEN.",
    )(function)


def range_options(function: Callable[..., int]) -> Callable[..., int]:
    """Add ``--prefix``, ``--start``, ``--end`` and ``--glob``; the command gets them as ``span``."""

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
