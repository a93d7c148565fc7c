"""COMMAND tells of the table that the commands are found in."""

from __future__ import annotations

import pytest

from haptera.dialects.resp.command_description import categories_of, key_roles
from haptera.dialects.resp.command_table import BY_NAME
from haptera.testing import virtual_clock
from tests.unit.dialects.resp.talks import Talk
from tests.unit.node.nodes import opened


@virtual_clock
async def test_all_commands_are_counted_listed_and_described() -> None:
    async with opened() as node:
        talk = Talk(node)
        assert await talk.do("COMMAND", "COUNT") == b":%d\r\n" % len(BY_NAME)
        for words in (("COMMAND",), ("COMMAND", "INFO"), ("COMMAND", "LIST")):
            reply = await talk.do(*words)
            assert reply.startswith(b"*%d\r\n" % len(BY_NAME))
            assert all(f"\r\n{name}\r\n".encode() in reply for name in BY_NAME)


@virtual_clock
async def test_a_command_that_is_unknown_has_no_description() -> None:
    async with opened() as node:
        talk = Talk(node)
        assert await talk.do("COMMAND", "INFO", "nothing", "client|nothing") == b"*2\r\n*-1\r\n*-1\r\n"
        assert await talk.do("COMMAND", "DOCS", "nothing") == b"*0\r\n"
        assert (await talk.do("COMMAND", "INFO", "GET")).startswith(b"*1\r\n*10\r\n$3\r\nget\r\n:2\r\n")
        assert await talk.do("COMMAND", "OTHER") == b"-ERR unknown subcommand 'OTHER'. Try COMMAND HELP.\r\n"


@virtual_clock
async def test_the_documents_of_a_command_have_those_of_its_parts() -> None:
    async with opened() as node:
        talk = Talk(node)
        reply = await talk.do("COMMAND", "DOCS", "object")
        assert b"$7\r\nsummary\r\n" in reply
        assert b"$15\r\nobject|encoding\r\n" in reply


@pytest.mark.parametrize(
    ("words", "reply"),
    [
        (("MSET", "a", 1, "b", 2), b"*2\r\n$1\r\na\r\n$1\r\nb\r\n"),
        (("OBJECT", "ENCODING", "a"), b"*1\r\n$1\r\na\r\n"),
        (("get", "a"), b"*1\r\n$1\r\na\r\n"),
        (("GET", "a", "b"), b"-ERR Invalid number of arguments specified for command\r\n"),
        (("ECHO", "a"), b"-ERR The command has no key arguments\r\n"),
        (("NOTHING", "a"), b"-ERR Invalid command specified\r\n"),
        (("OBJECT", "NOTHING", "a"), b"-ERR Invalid command specified\r\n"),
    ],
)
@virtual_clock
async def test_the_keys_of_a_call_are_found(words: tuple[str, ...], reply: bytes) -> None:
    async with opened() as node:
        assert await Talk(node).do("COMMAND", "GETKEYS", *words) == reply


@virtual_clock
async def test_the_keys_of_a_call_have_what_is_done_with_each() -> None:
    async with opened() as node:
        talk = Talk(node)
        assert await talk.do("COMMAND", "GETKEYSANDFLAGS", "RENAME", "a", "b") == (
            b"*2\r\n*2\r\n$1\r\na\r\n*3\r\n+RW\r\n+access\r\n+delete\r\n*2\r\n$1\r\nb\r\n*2\r\n+OW\r\n+update\r\n"
        )
        with_get = await talk.do("COMMAND", "GETKEYSANDFLAGS", "SET", "a", 1, "get")
        without = await talk.do("COMMAND", "GETKEYSANDFLAGS", "SET", "a", 1)
        assert (b"+RW\r\n" in with_get, b"+OW\r\n" in without) == (True, True)


@virtual_clock
async def test_the_list_is_chosen_from() -> None:
    async with opened() as node:
        talk = Talk(node)
        by_name = await talk.do("COMMAND", "LIST", "FILTERBY", "PATTERN", "get*")
        assert set(by_name.split(b"\r\n")[2::2]) == {b"get", b"getdel", b"getex", b"getrange", b"getset"}
        assert b"\r\nping\r\n" in await talk.do("COMMAND", "LIST", "FILTERBY", "ACLCAT", "connection")
        assert await talk.do("COMMAND", "LIST", "FILTERBY", "MODULE", "x") == b"*0\r\n"
        assert await talk.do("COMMAND", "LIST", "FILTERBY", "OTHER", "x") == b"-ERR syntax error\r\n"
        assert await talk.do("COMMAND", "LIST", "OTHER") == b"-ERR syntax error\r\n"


def test_a_command_that_writes_does_not_only_read_its_keys() -> None:
    commands = [*BY_NAME.values(), *(part for row in BY_NAME.values() for part in (row.subcommands or {}).values())]
    for command in commands:
        roles = [role for _, _, role in key_roles(command)]
        writes = "write" in command.flags
        assert all(role.startswith("RO") is not writes for role in roles), command.name
        assert ("write" in categories_of(command)) is writes
        assert len(set(command.summary)) > 5, command.name
