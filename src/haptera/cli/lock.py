"""``haptera lock``"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import click

from haptera.cli import output
from haptera.cli.client_command import Client, client_options
from haptera.cli.exit_codes import NOT_EXECUTABLE, NOT_FOUND, OF_LOCK, SIGNALLED, listed
from haptera.cli.held_process import HeldProcess
from haptera.cli.key_names import KEY
from haptera.cli.numbers import LEASE_TTL, Number

if TYPE_CHECKING:
    from haptera.client import Database, Holding, Lock

#: The variable in which the command finds the token.
TOKEN_VARIABLE: Final = "HAPTERA_LOCK_TOKEN"  # noqa: S105 - it opens nothing
#: The part of the time of a lock that is left of it when its holder takes it for lost.
GRACE: Final = 0.1
#: Signals that the command gets in place of this process.
PASSED_ON: Final = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


@click.command(epilog=listed(OF_LOCK))
@click.argument("key", type=KEY)
@click.argument("arguments", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND...")
@click.option(
    "--ttl",
    type=LEASE_TTL,
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long the lock stays when this command is not heard of.",
)
@click.option(
    "--within", type=Number(0), metavar="SECONDS", help="Give up when others hold it for so long; 0: at once."
)
@click.option(
    "--grace", type=Number(0), metavar="SECONDS", help="From SIGTERM to SIGKILL; a tenth of --ttl by default."
)
@client_options()
def command(
    key: str, arguments: tuple[str, ...], ttl: float, within: float | None, grace: float | None, client: Client
) -> int:
    """Run COMMAND while holding the lock KEY.

    It waits for its turn, in the order in which the claimants came. COMMAND finds the token of the lock in
    HAPTERA_LOCK_TOKEN, the store in HAPTERA_URL, and the user of this command in HAPTERA_USER and HAPTERA_PASSWORD, so
    that `haptera set K V --fence "$HAPTERA_LOCK_TOKEN"` in it changes nothing once the lock is lost. It runs in a
    process group of its own, which gets the signals that this command gets. When the lock is lost the group gets
    SIGTERM, and SIGKILL after --grace.

    It needs the permissions read, write, watch and lease on the keys that begin with KEY, and scan with --within 0.

    The exit code is that of COMMAND, or one of the following.
    """

    async def run(db: Database) -> int:
        turn = _Turn(arguments, client.environment(), ttl * GRACE if grace is None else grace)
        return await turn.take(db.lock(key, ttl=ttl, wait=within))

    return client.run(run)


class _Turn:
    """The run of the command, from the wait for the lock to the end."""

    def __init__(self, arguments: tuple[str, ...], environment: dict[str, str], grace: float) -> None:
        self._arguments = arguments
        self._environment = environment
        self._grace = grace
        self._task = asyncio.current_task()
        self._process: HeldProcess | None = None
        self._ended_by = 0  # a signal that came before there was a process

    async def take(self, lock: Lock) -> int:
        loop = asyncio.get_running_loop()
        for number in PASSED_ON:
            loop.add_signal_handler(number, self._signalled, number)
        try:
            async with lock as holding:
                return await self._run(holding)
        except asyncio.CancelledError:
            if not self._ended_by:
                raise
            return SIGNALLED + self._ended_by
        finally:
            for number in PASSED_ON:
                loop.remove_signal_handler(number)

    async def _run(self, holding: Holding) -> int:
        environment = {**os.environ, **self._environment, TOKEN_VARIABLE: str(holding.token)}
        try:
            process = self._process = HeldProcess(self._arguments, environment, lambda: holding.held)
        except OSError as error:
            message = f"cannot run {self._arguments[0]}: {error.strerror or error}"
            code = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
            output.error(message, {"message": message}, code)
            return code
        try:
            code = await asyncio.shield(process.ended)
        except asyncio.CancelledError:  # the lock is lost
            with suppress(asyncio.CancelledError):
                await process.terminate(self._grace)
            raise
        return code if code >= 0 else SIGNALLED - code

    def _signalled(self, number: int) -> None:
        if self._process is not None:
            self._process.send(number)
        elif self._task is not None and not self._ended_by:
            self._ended_by = number
            self._task.cancel()
