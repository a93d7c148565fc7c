"""``haptera storage rotate-key``"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from haptera import defaults
from haptera.cli import output
from haptera.cli.exit_codes import CANNOT_CONNECT, DONE, FAILED, IN_USE, REFUSED, UNKNOWN, listed_offline
from haptera.cli.failures import tell
from haptera.cli.offline import Offline, offline_options
from haptera.errors import ConnectionLost, DirectoryInUse, ServerError

if TYPE_CHECKING:
    from haptera.node import CurrentKeys

#: Seconds for the answer of a node: longer than the command of a master key may take.
TIMEOUT_SECONDS: Final = 45.0

_HELP: Final = f"""Make a new data key for the data directory DIR, or with --master a new master key.

A new data key is for everything that is written from then on. Old data keys are kept as long as data is under them.

With --master the data keys are encrypted under another master key, and no data is written again. If the master key is
beside the data, a new one is made there. --new-master-key-file puts the data keys under the key of a file instead; the
node needs that key, and no other, from then on.

Backups that were made before still need the old master key. One that was beside the data is kept there, as
master.key.ID; no command removes it.

If a node has the directory open, it makes the change. It takes the new master key from where it has the old one, which
has to give the new key first. --master-key-file and --master-key-command are refused then: the node has its own.

{
    listed_offline(
        {
            DONE: "done",
            CANNOT_CONNECT: "the node that has it open does not answer, and nothing was changed",
            REFUSED: "that node refuses",
            FAILED: "that node failed",
            UNKNOWN: "that node may have made the change",
            IN_USE: "another process has it open, which is no node that can be asked",
        }
    )
}
"""


@click.command(help=_HELP)
@click.argument("directory", metavar="DIR")
@click.option(
    "--master",
    is_flag=True,
    help="Change the master key, not the data key.",
)
@click.option("--new-master-key-file", metavar="FILE", help="The new master key: 32 bytes, or 64 hex digits.")
@offline_options
def command(directory: str, master: bool, new_master_key_file: str | None, offline: Offline) -> int:
    """Rotate, and say which keys are in use then."""
    master = master or new_master_key_file is not None

    def work() -> int:
        from haptera.node import change_master_key, read_master_key_file, rotate_data_key
        from haptera.storage import OsFileSystem

        config, fs = offline.config(directory), OsFileSystem()
        new = None if new_master_key_file is None else read_master_key_file(new_master_key_file)
        try:
            keys = change_master_key(fs, config, new) if master else rotate_data_key(fs, config)
        except DirectoryInUse:
            socket = os.path.join(directory, defaults.SOCKET_NAME)
            if not os.path.exists(socket):
                raise
            useless = ["--new-master-key-file"] if new is not None else offline.named_master_key
            if useless:
                raise click.UsageError(
                    "a node has the directory open, and takes the new master key from where it has the old one: "
                    f"leave out {' and '.join(useless)}"
                ) from None
            return _by_node(socket, directory, master, offline)
        return _tell(directory, keys, master, offline)

    return offline.run(directory, work)


def _by_node(socket: str, directory: str, master: bool, offline: Offline) -> int:
    """Have the node that listens on this socket make the change."""
    from haptera.client import connect_peer
    from haptera.node import CurrentKeys
    from haptera.transport import url_of

    url = url_of(os.path.abspath(socket))

    async def ask() -> CurrentKeys:
        async with connect_peer(url, timeout=TIMEOUT_SECONDS, wait=False) as peer:
            argument = msgspec.msgpack.encode(({"master": master},))
            answer = await peer.call("server", "rotate_key", argument, timeout=TIMEOUT_SECONDS)
            return msgspec.msgpack.decode(answer, type=CurrentKeys)

    try:
        keys = asyncio.run(ask())
    except (ConnectionLost, ServerError) as error:
        return tell(error, change=True)
    return _tell(directory, keys, master, offline)


def _tell(directory: str, keys: CurrentKeys, master: bool, offline: Offline) -> int:
    from haptera.storage import OsFileSystem, kept_master_keys

    kept = kept_master_keys(OsFileSystem(), directory)
    if offline.as_json:
        fields: dict[str, Any] = {
            "directory": directory,
            "data_key": keys.data_key.hex(),
            "master_key": keys.master_key.hex(),
            "origin": keys.origin,
            "kept_master_keys": kept,
        }
        output.json_line(fields)
    elif master:
        output.line(output.shown(f"{directory}: the data keys are under the master key {keys.master_key.hex()}"))
        for path in kept:
            output.line(output.shown(f"{path}: kept, because backups that were made under it need it"))
    else:
        output.line(output.shown(f"{directory}: the data key {keys.data_key.hex()} is for what is written from now on"))
    return DONE
