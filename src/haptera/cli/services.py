"""``haptera services``"""

from __future__ import annotations

import click
import msgspec

from haptera.cli import output
from haptera.cli.administration import joined, show_rows
from haptera.cli.client_command import Client, client_options
from haptera.cli.exit_codes import DONE
from haptera.errors import Code, RemoteProtocolError

_decode = msgspec.msgpack.Decoder(list[tuple[str, list[str]]]).decode


@click.command()
@client_options()
def command(client: Client) -> int:
    """List the services that the server hosts, and their methods.

    A line for each service: its name, tab, the names of its methods with commas between them. `haptera call` calls one.
    """
    return client.run_shown(lambda: client.finish(_run(client)))


async def _run(client: Client) -> int:
    async with client.connect_peer() as peer:
        answer = await peer.call("session", "describe", msgspec.msgpack.encode(()), timeout=client.timeout)
    try:
        described = _decode(answer)
    except (ValueError, RecursionError) as error:  # text that is not UTF-8 is no MsgspecError
        raise RemoteProtocolError(Code.MALFORMED_FRAME, f"the server's answer to session.describe: {error}") from error
    rows = [{"service": name, "methods": methods} for name, methods in described]
    show_rows(
        client,
        ["service", "methods"],
        rows,
        lambda row: [output.shown(row["service"]), output.shown(joined(row["methods"]))],
    )
    return DONE
