"""The parts that all commands of the client side share: their options, the connection, and how their work is run."""

from __future__ import annotations

import asyncio
import functools
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, cast

import click

from haptera.cli import output
from haptera.cli.certificate_login import certificate_step
from haptera.cli.exit_codes import CANNOT_WRITE, INTERRUPTED
from haptera.cli.failures import EFFECTS, Target, tell
from haptera.cli.key_names import KEY
from haptera.cli.library_warnings import warnings_shown
from haptera.cli.numbers import Number
from haptera.cli.open_store import OpenStore, check_no_other_store, open_store
from haptera.client import (
    PASSWORD_VARIABLE,
    URL_VARIABLE,
    USER_VARIABLE,
    Database,
    Given,
    check_used,
    connect,
    connect_peer,
    default_url,
    has_password,
    shown_url,
    user_beside,
    user_in,
)
from haptera.errors import ConfigurationError, HapteraError, Outcome
from haptera.key_rules import VERSION_MAX
from haptera.peer import read_password_file

if TYPE_CHECKING:
    from haptera.peer import Peer


T = TypeVar("T")


class Span(TypedDict, total=False):
    """A range of keys, as far as one was given."""

    prefix: str
    start: str
    end: str
    glob: str


class Client:
    """The options that every command of the client side has, and how its work is run."""

    def __init__(
        self,
        url: str | None,
        timeout: float | None,
        as_json: bool,
        wait: bool = False,
        user: str | None = None,
        password_file: str | None = None,
    ) -> None:
        if url is not None and has_password(url):
            raise click.UsageError(
                "a URL on a command line may not carry a password, because every user of this machine can read it; "
                f"--password-file FILE may, or {PASSWORD_VARIABLE} in the environment, or the prompt for it"
            )
        if password_file == "-":  # noqa: S105  # the name of no file
            raise click.UsageError(
                "--password-file takes no standard input, because commands read values from it; "
                f"{PASSWORD_VARIABLE} in the environment or the prompt gives a password without a file"
            )
        self.url = url
        self.timeout = timeout
        self.as_json = as_json
        self.wait = wait
        self._user = user
        self._password_file = password_file
        self._given: Given | None = None
        self._databases: list[Database] = []
        self._dialled: str | None = None  # the URL of connections without a database
        self._welcomed = False
        self._opened: OpenStore | None = None

    @classmethod
    def on_open_store(cls, opened: OpenStore, as_json: bool, timeout: float | None = None) -> Client:
        """The client of one of the commands that share a store: with its URL, its credential and its timeout, unless
        the command has a longer ``timeout``.
        """
        shared = opened.client
        longest = max(filter(None, (shared.timeout, timeout)), default=None)
        client = cls(shared.url, longest, as_json)
        client._given = shared.given
        client._databases = [opened.database]
        client._opened = opened
        return client

    def at(self, url: str) -> Client:
        """The same client of another way to say the URL. Raises ``UsageError`` where it is said twice."""
        if self.url is not None:
            raise click.UsageError("a URL is given twice")
        return Client(url, self.timeout, self.as_json, self.wait, self._user, self._password_file)

    @property
    def given(self) -> Given:
        """The credential beside the URL. A password that is nowhere is asked for once, on a terminal."""
        if self._given is None:
            user = user_beside(self.url, self._user)
            if user is None and self.url is not None and user_in(self.url) is None:
                user = os.environ.get(USER_VARIABLE) or None
            check_used(self.url, Given(user, None, self._password_file))
            named = user if user is not None else user_in(self.url)
            password = None
            if named is not None and self._password_file is None and not has_password(self.url or default_url()):
                password = os.environ.get(PASSWORD_VARIABLE)
                if password is None:
                    password = _asked_for(named)
            self._given = Given(user, password, self._password_file)
        return self._given

    def environment(self) -> dict[str, str]:
        """The variables by which a command that is started from here finds the same store and logs in as the same user.

        A password goes by the environment, which no other user of the machine can read, and never by an argument.
        """
        given = self.given
        password = given.password if given.password_file is None else read_password_file(given.password_file)
        variables = {URL_VARIABLE: self.url or default_url(), USER_VARIABLE: given.user, PASSWORD_VARIABLE: password}
        return {name: value for name, value in variables.items() if value is not None}

    def connect(self) -> Database:
        """The store of this command."""
        given = self.given
        db = connect(
            self.url,
            user=given.user,
            password=given.password,
            password_file=given.password_file,
            timeout=self.timeout,
            wait=self.wait,
        )
        self._databases.append(db)
        return db

    @asynccontextmanager
    async def connect_peer(self, url: str | None = None) -> AsyncIterator[Peer]:
        """A connection for calls that a database does not make: to ``url``, else to the store of this command."""
        url = self.url if url is None else url
        self._dialled = shown_url(url)
        async with connect_peer(url, timeout=self.timeout, wait=self.wait, given=self.given) as peer:
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
            return Target(shown_url(self.url), answered=False, connected=self._databases[-1].connected_once)
        return None

    def run(
        self,
        work: Callable[[Database], Awaitable[int]],
        *,
        change: bool = False,
        step: Callable[[HapteraError], str] = lambda _: "",
    ) -> int:
        """Run ``work`` with the database, and return the exit code that it returns, or that its error stands for.

        With ``change`` the work changes the store. It is not begun where its result certainly cannot be written, and
        the command tells the change's outcome however it ends. ``step`` gives the next step behind an error where the
        command knows a better one than that of the error's code.
        """
        if change:
            output.require()
        try:
            with warnings_shown():
                code = self.finish(self._run(work)) if self._opened is None else self._opened.carry_out(work)
            output.flush()
        except HapteraError as error:
            known = step(error) or certificate_step(error, self.url)
            return tell(error, change=change, target=self.target, help_=known)
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

    def finish(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end: on the loop of the open store, which lives on meanwhile, if there is one."""
        return asyncio.run(coroutine) if self._opened is None else self._opened.run(coroutine)

    def run_shown(self, work: Callable[[], int], *, change: bool = False) -> int:
        """Run something else than calls to a database, and report its warnings and errors in the same way. With
        ``change`` it may change something, and its error tells the outcome.
        """
        try:
            with warnings_shown():
                return work()
        except HapteraError as error:
            return tell(error, change=change, target=self.target, help_=certificate_step(error, self.url))
        except KeyboardInterrupt:
            return INTERRUPTED


def _asked_for(user: str) -> str:
    """The password of a user, from a terminal. Raises ``ConfigurationError`` where there is none."""
    if sys.stdin is None or not sys.stdin.isatty():
        raise ConfigurationError(
            f"the user {user} has no password, and there is no terminal to ask for it; --password-file FILE or "
            f"{PASSWORD_VARIABLE} in the environment gives it"
        )
    password: str = click.prompt(f"Password of {user}", hide_input=True, err=True)
    return password


def client_options(timeout: float = 5.0) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Add the options of a client, such as ``--url`` and ``--user``; the command gets a `Client` as ``client``."""

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
        @click.option(
            "--user",
            metavar="NAME",
            help="The user, else HAPTERA_USER, with a password of a file, HAPTERA_PASSWORD or the prompt.",
        )
        @click.option("--password-file", metavar="FILE", help="A file with the user's password in its one line.")
        @functools.wraps(function)
        def wrapper(
            url: str | None,
            timeout: float,
            as_json: bool,
            wait: bool,
            user: str | None,
            password_file: str | None,
            **arguments: Any,
        ) -> int:
            opened = open_store()
            if opened is None:
                client = Client(url, timeout, as_json, wait, user, password_file)
            else:
                check_no_other_store(url=url, user=user, password_file=password_file, wait=wait, timeout=_is_given())
                client = Client.on_open_store(opened, as_json or output.form() == "json", timeout)
            return function(client=client, **arguments)

        return wrapper

    return decorate


def _is_given() -> bool:
    """Whether the command line of this command has a ``--timeout``."""
    return click.get_current_context().get_parameter_source("timeout") is click.core.ParameterSource.COMMANDLINE


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

    @click.option("--prefix", type=KEY, metavar="TEXT", help="Keys that begin with this.")
    @click.option("--start", type=KEY, metavar="KEY", help="Keys from this one on.")
    @click.option("--end", type=KEY, metavar="KEY", help="Keys before this one.")
    @click.option("--glob", metavar="PATTERN", help="Keys that match, such as 'user/*/name'.")
    @functools.wraps(function)
    def wrapper(prefix: str | None, start: str | None, end: str | None, glob: str | None, **arguments: Any) -> int:
        given = {"prefix": prefix, "start": start, "end": end, "glob": glob}
        span = cast("Span", {name: text for name, text in given.items() if text is not None})
        return function(span=span, **arguments)

    return wrapper
