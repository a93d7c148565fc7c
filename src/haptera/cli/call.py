"""``haptera call``"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from haptera.cli import output
from haptera.cli.client_command import Client, client_options
from haptera.cli.exit_codes import DONE
from haptera.cli.standard_input import read_standard_input

if TYPE_CHECKING:
    from haptera.peer import Peer

#: Bytes of a payload that is read: a message has 16 MiB at most, and one byte more is refused by the server's limit.
PAYLOAD_SIZE_MAX: Final = 16 * 1024 * 1024 + 1


@click.command()
@click.argument("service")
@click.argument("method")
@click.argument("payload", metavar="[PAYLOAD|-]", default="[]")
@click.option("--raw", is_flag=True, help="Send PAYLOAD and write the answer byte for byte.")
@click.option("--stream", is_flag=True, help="Write each item of the answer, and then its result.")
@client_options()
def command(service: str, method: str, payload: str, raw: bool, stream: bool, client: Client) -> int:
    """Call METHOD of SERVICE, and write its answer.

    PAYLOAD is JSON, which is sent as MessagePack, as services of a node and most others take it: an array of arguments,
    [] unless it is given. - reads it from standard input. {"base64": "…"} stands for bytes, in PAYLOAD and in answers.
    The answer is JSON on a line. `haptera services` lists the methods.

    \b
      haptera call kv get '["user/1"]'
      haptera call kv scan '[{"prefix": "user/"}]' --stream
    """  # noqa: D301  # the sign of click for lines that stay as they are
    data = read_standard_input(PAYLOAD_SIZE_MAX) if payload == "-" else payload.encode(errors="surrogateescape")
    message = data if raw else _packed(data)
    return client.run_shown(lambda: client.finish(_run(client, service, method, message, raw, stream)), change=True)


def _packed(data: bytes) -> bytes:
    """JSON as MessagePack. Raises ``UsageError``."""
    try:
        value = json.loads(data, object_hook=_bytes_of)
        return msgspec.msgpack.encode(value)
    except (ValueError, RecursionError, OverflowError) as error:
        raise click.UsageError(f"PAYLOAD is no JSON that can be sent: {error}") from None


def _bytes_of(found: dict[str, Any]) -> Any:
    if found.keys() != {"base64"} or not isinstance(found["base64"], str):
        return found
    return msgspec.convert(found["base64"], bytes)  # msgspec reads bytes from base64


async def _run(client: Client, service: str, method: str, message: bytes, raw: bool, stream: bool) -> int:
    async with client.connect_peer() as peer:
        if stream:
            await _stream(peer, service, method, message, raw)
        else:
            _write(await peer.call(service, method, message, timeout=client.timeout), raw)
    return DONE


async def _stream(peer: Peer, service: str, method: str, message: bytes, raw: bool) -> None:
    async with peer.stream(service, method, message) as items:
        async for item in items:
            _write(item, raw)
            output.flush()
        if items.answer is not None:
            _write(items.answer.result(), raw)


def _write(answer: bytes, raw: bool) -> None:
    if raw:
        output.write(answer)
        return
    try:
        value = msgspec.msgpack.decode(answer, strict=False)
    except (ValueError, RecursionError):
        raise click.ClickException("the answer is no MessagePack; --raw writes it byte for byte") from None
    output.json_line(_shown(value))


def _shown(value: Any) -> Any:
    """A value of MessagePack as JSON has it: text where bytes are UTF-8, else an object with base64."""
    match value:
        case bytes():
            return {"base64": msgspec.to_builtins(value)}
        case list() | tuple():
            return [_shown(each) for each in value]
        case dict():
            return {str(name): _shown(each) for name, each in value.items()}
        case _:
            return value
