"""``haptera metrics``"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from haptera.cli import output
from haptera.cli.client_command import Client, client_options
from haptera.cli.exit_codes import DONE, NO
from haptera.cli.numbers import Number
from haptera.cli.transfer import field_escapes
from haptera.client import Metrics, ServerMethods
from haptera.errors import Code, failure

if TYPE_CHECKING:
    from haptera.peer import CallStream, Peer

#: A timeout is above 0, and a connection that was made in the last moment is asked all the same.
SECONDS_LEFT_MIN: Final = 0.001


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]…")
@click.option(
    "--watch",
    type=Number(0.1, 3600.0),
    metavar="SECONDS",
    help="Go on: at first every metric, then after each interval the changed ones. Ctrl-C ends it.",
)
@client_options()
def command(client: Client, names: tuple[str, ...], watch: float | None) -> int:
    """Show the metrics of a node; with NAMEs, only metrics whose names begin with one of them.

    Into a pipe, each is a line: name, tab, value; with --watch the time comes first. With --json each sample is
    one line. Exit code 1: a NAME that no metric's name begins with.
    """
    return client.run_shown(lambda: client.finish(_run(client, names, watch)))


async def _run(client: Client, names: tuple[str, ...], watch: float | None) -> int:
    loop = asyncio.get_running_loop()
    deadline = None if client.timeout is None else loop.time() + client.timeout
    async with client.connect_peer() as peer:
        if watch is None:
            left = None if deadline is None else max(deadline - loop.time(), SECONDS_LEFT_MIN)
            method = ServerMethods.metrics
            answer = await peer.call(method.service, method.name, _encode(()), timeout=left)
            values = method.decode(answer)
            _show(client, _chosen(values, names))
            return NO if _tell_unknown(values, names) else DONE
        return await _watch(client, peer, names, watch, deadline)


async def _watch(client: Client, peer: Peer, names: tuple[str, ...], seconds: float, deadline: float | None) -> int:
    """Show samples without end. The first one is an answer, and has to be there by ``deadline``, time of the loop."""
    argument = _encode(({"interval_ms": round(seconds * 1000)},))
    before: Metrics | None = None
    async for item in _within(deadline, peer.stream(ServerMethods.metrics.service, "watch_metrics", argument)):
        time_ms, sample = _decode_sample(item)
        values = _chosen(sample, names)
        if before is None:
            if _tell_unknown(sample, names) and not values:
                return NO
            before = {}
        time = datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if client.as_json:
            output.json_line({"time": time, "metrics": values})
        else:
            for name, value in values.items():
                if before.get(name) != value:
                    output.line(f"{time}\t{field_escapes.written(name)}\t{_text(value)}")
        output.flush()
        before = values
    return DONE


async def _within(deadline: float | None, stream: CallStream) -> AsyncIterator[bytes]:
    """The items of ``stream``. Raises ``DeadlineExceeded`` where the first one is not there by ``deadline``."""
    async with stream:
        try:
            async with asyncio.timeout_at(deadline):
                first = await anext(stream, None)
        except TimeoutError:
            raise failure(Code.DEADLINE_EXCEEDED, outcome="not_applied").exception() from None
        if first is not None:
            yield first
        async for item in stream:
            yield item


def _show(client: Client, values: Metrics) -> None:
    if client.as_json:
        output.json_line(values)
    elif output.as_tables():
        output.table(["metric", "value"], [[name, _text(value)] for name, value in values.items()])
    else:
        for name, value in values.items():
            output.line(f"{field_escapes.written(name)}\t{_text(value)}")


def _chosen(values: Metrics, names: tuple[str, ...]) -> Metrics:
    return {name: value for name, value in values.items() if not names or name.startswith(names)}


def _tell_unknown(values: Metrics, names: tuple[str, ...]) -> bool:
    """Say which of ``names`` no metric begins with, if there is one: a name that was mistyped is not a quiet node."""
    unknown = [name for name in names if not any(each.startswith(name) for each in values)]
    for name in unknown:
        message = f"no metric's name begins with {name!r}"
        output.error(message, {"message": message}, NO)
    return bool(unknown)


def _text(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6f}".rstrip("0").rstrip(".")


_encode = msgspec.msgpack.Encoder().encode
_decode_sample: Any = msgspec.msgpack.Decoder(tuple[int, Metrics]).decode
