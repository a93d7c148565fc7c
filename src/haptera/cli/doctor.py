"""``haptera doctor``"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import click
import msgspec

from haptera.cli import output
from haptera.cli.client_command import Client, client_options
from haptera.cli.exit_codes import CANNOT_WRITE, DONE, NO, OF_CLIENTS, USAGE, listed
from haptera.peer import DEFAULT

if TYPE_CHECKING:
    from collections.abc import Sequence

#: A weakness as it is answered: its severity, its name, the finding, the next step. A newer node may add to it.
Found = tuple[str, str, str, str]
_FIELDS: Final = ("severity", "name", "finding", "help")
_HELP: Final = f"""Name the settings of a node that work and protect less than they could, each with the next step.

The node looks at its listeners, certificates, users, keys, files and process, and needs an administrator for that: the
user who runs it is one at the local socket. With --data-dir the files alone are looked at, without a node.

{
    listed(
        OF_CLIENTS
        | {
            DONE: "nothing was found",
            NO: "something was",
            USAGE: "usage, or there is no such directory",
            CANNOT_WRITE: "the directory cannot be read, or the result cannot be written",
        }
    )
}
"""
_decoder: Final = msgspec.msgpack.Decoder(list[list[str]])


@click.command(help=_HELP)
@click.option(
    "--data-dir", metavar="DIR", help="Look at this data directory alone, and ask no node. One may have it open."
)
@client_options()
def command(client: Client, data_dir: str | None) -> int:
    """Ask the node, or look at the directory, and report."""
    if data_dir is not None:
        directory = data_dir
        return client.run_shown(lambda: _look_at(directory, client))

    async def ask() -> list[Found]:
        async with client.connect_peer() as peer:
            timeout = DEFAULT if client.timeout is None else client.timeout
            answer = await peer.call("server", "doctor", msgspec.msgpack.encode(()), timeout=timeout)
            return _found(_decoder.decode(answer))

    return client.run_shown(lambda: _tell(client.finish(ask()), client))


def _look_at(path: str, client: Client) -> int:
    from haptera.node import in_order, of_directory

    try:
        found = in_order(of_directory(path, time.time()))
    except OSError as error:
        code = USAGE if isinstance(error, (FileNotFoundError, NotADirectoryError)) else CANNOT_WRITE
        message = f"{path}: {error.strerror or error}"
        output.error(message, {"message": message}, code)
        return code
    return _tell(_found(found), client)


def _found(rows: Sequence[Sequence[str]]) -> list[Found]:
    return [(row[0], row[1], row[2], row[3]) for row in rows if len(row) >= len(_FIELDS)]


def _tell(found: list[Found], client: Client) -> int:
    if client.as_json:
        output.json_line({"findings": [dict(zip(_FIELDS, each, strict=True)) for each in found]})
    elif not found:
        output.line("nothing was found")
    elif output.as_tables():
        output.table(["severity", "finding", "next step"], [(each[0], each[2], each[3]) for each in found])
    else:
        for each in found:
            output.line("\t".join(map(output.shown, each)))
    output.flush()
    return NO if found else DONE
