"""``haptera lease keep``"""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Final

import click

from haptera.cli import output
from haptera.cli.client_command import Client, client_options
from haptera.cli.exit_codes import DONE, LOST
from haptera.cli.numbers import LEASE_TTL

if TYPE_CHECKING:
    from haptera.client import Database


STOPPED_BY: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.command()
@click.argument("seconds", type=LEASE_TTL)
@client_options()
def command(seconds: float, client: Client) -> int:
    """Grant a lease, write its id, and keep it alive until SIGINT, SIGTERM or SIGHUP. Then it is revoked.

    Its keys stay for SECONDS when this command cannot reach the store any more. Exit code 8: the lease was lost.
    """

    async def run(db: Database) -> int:
        loop = asyncio.get_running_loop()
        told = asyncio.Event()
        for number in STOPPED_BY:
            loop.add_signal_handler(number, told.set)
        try:
            return await _keep(db, seconds, client, told)
        finally:
            for number in STOPPED_BY:
                loop.remove_signal_handler(number)

    return client.run(run)


async def _keep(db: Database, seconds: float, client: Client, told: asyncio.Event) -> int:
    """Hold a lease until it is lost, or a signal has ``told`` that it is enough."""
    async with db.lease(seconds) as lease:
        client.show({"lease": lease.id, "ttl": seconds}, str(lease.id))
        output.flush()
        lost, stopped = asyncio.ensure_future(lease.lost), asyncio.ensure_future(told.wait())
        await asyncio.wait([lost, stopped], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if lost.done():
            message = f"the lease {lease.id} was lost: {lost.result()}"
            output.error(message, {"message": message, "lease": lease.id}, LOST)
            return LOST
    return DONE
