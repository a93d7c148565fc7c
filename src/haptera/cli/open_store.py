"""A store that stays open while several commands of one process run on it, as the lines of a shell do."""

from __future__ import annotations

import asyncio
import contextvars
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator

    from haptera.cli.client_command import Client
    from haptera.client import Database

    Work = Callable[[Database], Awaitable[int]]
    #: Carries out the work of one command, and returns its exit code.
    Route = Callable[[Work], int]

T = TypeVar("T")


class OpenStore:
    """The database of ``client``, with the event loop that it belongs to. Use it in a ``with`` block.

    The loop runs only while a coroutine is run, in the thread that runs it: so Ctrl-C cancels that coroutine, and the
    tasks beside it go on with the next one.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self.database: Database = client.connect()
        self._runner = asyncio.Runner()
        self._route: Route = self.run_on_it

    def __enter__(self) -> OpenStore:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.run(self.database.aclose())
        finally:
            self._runner.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop. Raises ``KeyboardInterrupt`` when Ctrl-C has cancelled it and it has ended."""
        return self._runner.run(coroutine, context=contextvars.copy_context())

    def run_on_it(self, work: Work) -> int:
        """Run the work of a command with the database."""

        async def run() -> int:
            return await work(self.database)

        return self.run(run())

    def carry_out(self, work: Work) -> int:
        """Carry out the work of a command: run it with the database, unless `routed` says otherwise."""
        return self._route(work)

    @contextmanager
    def routed(self, route: Route) -> Iterator[None]:
        """Within the block ``route`` carries out the work of commands."""
        before, self._route = self._route, route
        try:
            yield
        finally:
            self._route = before


_opened: contextvars.ContextVar[OpenStore | None] = contextvars.ContextVar("open_store", default=None)


def open_store() -> OpenStore | None:
    """The store that the commands of this context run on; None where each opens its own."""
    return _opened.get()


@contextmanager
def commands_run_on(store: OpenStore) -> Iterator[None]:
    """Within the block commands run on ``store``."""
    token = _opened.set(store)
    try:
        yield
    finally:
        _opened.reset(token)


def check_no_other_store(**given: object) -> None:
    """Raise ``UsageError`` for an option that names another store, or another way to it, than the open one."""
    for option, value in given.items():
        if value:
            name = f"--{option.replace('_', '-')}"
            raise click.UsageError(f"{name} goes with `haptera shell`, because all of its lines share one connection")
