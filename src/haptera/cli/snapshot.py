"""``haptera snapshot``"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from haptera.cli.client_command import Client, client_options
from haptera.cli.exit_codes import DONE
from haptera.client import ServerMethods, SnapshotMade

if TYPE_CHECKING:
    from haptera.peer import Peer

#: Seconds that a snapshot may take by default: that of a large store takes minutes.
TIMEOUT_S = 3600.0


@click.command()
@client_options(timeout=TIMEOUT_S)
def command(client: Client) -> int:
    """Make a snapshot of the store, and wait until it is the current one.

    The store is served meanwhile, and a start of the node reads the snapshot and the log behind it. A node makes
    snapshots by itself; another one is of use before an upgrade or a planned restart. Ctrl-C ends the wait and not the
    snapshot.
    """
    return client.run_shown(lambda: client.finish(_run(client)))


async def _run(client: Client) -> int:
    async with client.connect_peer() as peer:
        made = await _ask(peer, client.timeout)
    client.show(
        msgspec.to_builtins(made),
        f"index {made.index}, revision {made.revision}: {made.bytes} bytes in {made.seconds:.1f} s",
    )
    return DONE


async def _ask(peer: Peer, timeout: float | None) -> SnapshotMade:
    method = ServerMethods.snapshot
    answer = await peer.call(method.service, method.name, msgspec.msgpack.encode(()), timeout=timeout)
    return method.decode(answer)
