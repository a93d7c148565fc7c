"""COMMAND: the table of commands, as clients ask for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.dialects.resp.command_description import (
    SET_ROLE,
    SET_ROLE_WITHOUT_GET,
    categories_of,
    described,
    documented,
    key_roles,
)
from haptera.dialects.resp.error_words import SYNTAX, unknown_subcommand
from haptera.dialects.resp.help_lines import command_of_parts, part
from haptera.dialects.resp.redis_glob import redis_glob
from haptera.dialects.resp.reply_encoding import array, array_of_bulks, bulk, error, integer, set_of, simple, text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from haptera.dialects.resp.resp_session import RespSession
    from haptera.dialects.resp.steps import Command, Handler, Step

_UNKNOWN: Final = error("ERR Invalid command specified")
_WRONG_NUMBER: Final = error("ERR Invalid number of arguments specified for command")
_NO_KEYS: Final = error("ERR The command has no key arguments")


def _found(table: Mapping[str, Command], name: bytes) -> Command | None:
    """The command of a name, which may be that of a part: `client|id`."""
    whole, _, part_name = name.decode("latin-1").lower().partition("|")
    command = table.get(whole)
    return command if command is None or not part_name else (command.subcommands or {}).get(part_name)


def _all(table: Mapping[str, Command]) -> Iterator[Command]:
    """All commands and their parts."""
    for command in table.values():
        yield command
        yield from (command.subcommands or {}).values()


def _described(table: Mapping[str, Command], session: RespSession, names: list[bytes]) -> bytes:
    found = [_found(table, name) for name in names]
    return array([session.null_array if each is None else described(each, session.protocol) for each in found])


def _list(table: Mapping[str, Command], session: RespSession, options: list[bytes]) -> bytes:
    names = list(_all(table))
    if options:
        if len(options) != 3 or options[0].upper() != b"FILTERBY":
            return SYNTAX
        value = options[2].lower()
        match options[1].upper():
            case b"MODULE":
                names = []
            case b"ACLCAT":
                names = [each for each in names if value.decode("latin-1").removeprefix("@") in categories_of(each)]
            case b"PATTERN":
                names = [each for each in names if redis_glob(value).matches(each.name.encode())]
            case _:
                return SYNTAX
    else:
        names = list(table.values())
    return set_of([text(each.name) for each in names], session.protocol)


def _called(table: Mapping[str, Command], arguments: list[bytes]) -> Command | bytes:
    """The command that some arguments call, with its keys; or why there is none."""
    command = _found(table, arguments[0])
    if command is not None and command.subcommands is not None and len(arguments) > 1:
        command = _found(table, arguments[0] + b"|" + arguments[1])
    if command is None:
        return _UNKNOWN
    if not command.first_key:
        return _NO_KEYS
    return command if command.takes(len(arguments)) else _WRONG_NUMBER


def _get_keys(table: Mapping[str, Command], session: RespSession, arguments: list[bytes]) -> bytes:
    command = _called(table, arguments)
    return command if isinstance(command, bytes) else array_of_bulks(command.keys(arguments))


def _get_keys_and_flags(table: Mapping[str, Command], session: RespSession, arguments: list[bytes]) -> bytes:
    command = _called(table, arguments)
    if isinstance(command, bytes):
        return command
    keys = command.keys(arguments)
    roles = [role for _, _, role in key_roles(command)]
    if roles == [SET_ROLE] and b"GET" not in {option.upper() for option in arguments[3:]}:
        roles = [SET_ROLE_WITHOUT_GET]
    of_each = roles if len(roles) > 1 else roles * len(keys)
    version = session.protocol
    return array(
        [
            array([bulk(key), set_of([simple(flag) for flag in role.split()], version)])
            for key, role in zip(keys, of_each, strict=True)
        ]
    )


def command_row(table: Mapping[str, Command]) -> Command:
    """Return the row of COMMAND, which tells of a table that it will be in."""

    def of_table(
        tell: Callable[[Mapping[str, Command], RespSession, list[bytes]], bytes],
    ) -> Handler:
        def handler(session: RespSession, arguments: list[bytes]) -> Step:
            return tell(table, session, arguments[2:])

        return handler

    def documents(of: Mapping[str, Command], session: RespSession, names: list[bytes]) -> bytes:
        chosen = [_found(of, name) for name in names] if names else list(of.values())
        return documented([each for each in chosen if each is not None], session.protocol)

    def information(of: Mapping[str, Command], session: RespSession, names: list[bytes]) -> bytes:
        return _described(of, session, names or [name.encode() for name in of])

    def all_of_them(session: RespSession, arguments: list[bytes]) -> Step:
        if len(arguments) > 1:
            return unknown_subcommand("command", arguments[1])
        return information(table, session, [])

    plain = "loading stale"
    return command_of_parts(
        "command",
        -1,
        "2.8.13",
        "Describe the commands.",
        [
            part("command|count", 2, plain, "2.8.13", "Count them.", of_table(lambda of, *_: integer(len(of)))),
            part("command|docs", -2, plain, "7.0.0", "Say what they do.", of_table(documents)),
            part("command|getkeys", -3, plain, "2.8.13", "Find the keys of a call.", of_table(_get_keys)),
            part(
                "command|getkeysandflags",
                -3,
                plain,
                "7.0.0",
                "Find the keys of a call, and what is done with them.",
                of_table(_get_keys_and_flags),
            ),
            part("command|info", -2, plain, "2.8.13", "Describe some of them.", of_table(information)),
            part("command|list", -2, plain, "7.0.0", "Name them: all, or FILTERBY ACLCAT, PATTERN.", of_table(_list)),
        ],
        handler=all_of_them,
    )
