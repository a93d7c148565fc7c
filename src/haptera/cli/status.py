"""``haptera status``"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from haptera.cli import output
from haptera.cli.client_command import Client, client_options
from haptera.cli.exit_codes import DONE
from haptera.cli.transfer import field_escapes

if TYPE_CHECKING:
    from haptera.client import Database

#: The fields that are bytes.
SIZES: Final = frozenset({"memory", "memory_max", "snapshot_memory"})


@click.command()
@client_options()
def command(client: Client) -> int:
    """Show the URL of the node that answers, its version, its state and its health.

    The state is its durability, encryption, revision, keys, connections and more. Where the health has a reason, that
    is shown with the next step, and the time at which it began, if that is known.

    A terminal has sizes and times in units for people. A pipe has the numbers, in bytes and milliseconds.
    """

    async def run(db: Database) -> int:
        said = await db.status()
        status = {"url": db.reached, **{name: _plain(value) for name, value in said.items()}}
        if client.as_json:
            output.json_line(status)
        elif output.as_tables():
            output.table(["", "value"], [_row(name, value) for name, value in status.items()])
        else:
            for name, value in status.items():
                output.line(f"{field_escapes.written(name)}: {field_escapes.written(_text(value))}")
        return DONE

    return client.run(run)


def _plain(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _row(name: str, value: Any) -> list[str]:
    """A field of the status as a person reads it."""
    if type(value) is not int:  # a newer node may send anything
        return [name, _text(value)]
    if name == "memory_max" and value == 0:
        return [name, "no bound"]
    if name in SIZES:
        return [name, output.size(value)]
    if name == "uptime_ms":
        return ["uptime", output.duration(value / 1000)]
    if name in {"certificate_ends_at", "health_since"}:
        return [name, _time(value)]
    return [name, f"{value:,}"]


def _time(time_ms: int) -> str:
    try:
        return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return str(time_ms)
