"""The text of HELP for a command of several parts: its parts and what each does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.dialects.resp.reply_encoding import array, simple
from haptera.dialects.resp.steps import Command, flags

if TYPE_CHECKING:
    from collections.abc import Iterable

    from haptera.dialects.resp.resp_session import RespSession
    from haptera.dialects.resp.steps import Handler, Step


def part(
    name: str, arity: int, flag_words: str, since: str, summary: str, handler: Handler, *, key: int = 0, group: str = ""
) -> Command:
    """Return a part of a command, such as ``object|encoding``; ``key`` is the place of its key, if it has one."""
    return Command(
        name=name,
        arity=arity,
        flags=flags(flag_words),
        group=group or _GROUPS.get(name.partition("|")[0], "server"),
        since=since,
        summary=summary,
        handler=handler,
        first_key=key,
        last_key=key,
        key_step=1 if key else 0,
    )


#: The groups of commands that are not of the server.
_GROUPS: Final = {"client": "connection", "function": "scripting", "object": "generic", "pubsub": "pubsub"}


def _no_part(session: RespSession, arguments: list[bytes]) -> Step:
    """A call without a part has too few arguments, which the table has said already."""
    raise AssertionError(arguments)


def command_of_parts(
    name: str, arity: int, since: str, summary: str, parts: Iterable[Command], handler: Handler | None = None
) -> Command:
    """Return a command with its parts, and with HELP among them. ``handler`` is for a call that names none of them,
    which is then as harmless as they are.
    """
    table = {each.name.partition("|")[2]: each for each in parts}

    def explain(session: RespSession, arguments: list[bytes]) -> Step:
        lines = [f"{name.upper()} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"]
        for part_name, each in table.items():
            lines += [part_name.upper(), f"    {each.summary}"]
        return array([simple(line) for line in lines])

    table["help"] = part(f"{name}|help", 2, "loading stale", since, "Show this text.", explain)
    return Command(
        name=name,
        arity=arity,
        flags=flags("loading stale" if handler is not None else ""),
        group=_GROUPS.get(name, "server"),
        since=since,
        summary=summary,
        handler=handler or _no_part,
        subcommands=table,
    )
