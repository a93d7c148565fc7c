"""CLIENT: names, and the list of connections, in which a user sees its own."""

from __future__ import annotations

import pytest

from haptera.dialects.resp.client_details import NAME_SIZE_MAX, is_client_name
from tests.unit.dialects.resp.served import PASSWORD, Wire, served, with_users

pytestmark = pytest.mark.usefixtures("quick_passwords")

OK = b"+OK\r\n"
SYNTAX = b"-ERR syntax error\r\n"


async def number_of(wire: Wire) -> int:
    """The number of a connection."""
    return int((await wire.do("CLIENT", "ID"))[1:-2])


async def listed(wire: Wire, *options: str | int) -> list[dict[str, str]]:
    """The lines of CLIENT LIST, as a program reads them."""
    lines = (await wire.text("CLIENT", "LIST", *options)).splitlines()
    return [dict(field.split("=", 1) for field in line.split(" ")) for line in lines]


async def test_each_connection_has_a_number_and_the_name_that_it_is_given() -> None:
    async with served() as node:
        first, second = await node.wire(), await node.wire()
        assert await number_of(first) < await number_of(second)
        assert await first.do("CLIENT", "GETNAME") == b"$-1\r\n"
        assert await first.do("CLIENT", "SETNAME", "worker-1") == OK
        assert await first.do("CLIENT", "GETNAME") == b"$8\r\nworker-1\r\n"
        assert await first.do("CLIENT", "SETNAME", "") == OK
        assert await first.do("CLIENT", "GETNAME") == b"$-1\r\n"


@pytest.mark.parametrize("name", [b"two words", b"line\n", b"\xff", b"\x7f", b"n" * (NAME_SIZE_MAX + 1)])
async def test_a_name_that_breaks_the_list_is_refused(name: bytes) -> None:
    assert not is_client_name(name)
    async with served() as node:
        wire = await node.wire()
        assert await wire.do("CLIENT", "SETNAME", name) == (
            b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n"
        )
        assert (await wire.do("CLIENT", "SETINFO", "lib-name", name)).startswith(b"-ERR lib-name cannot contain")


async def test_the_list_shows_the_details_of_each_connection() -> None:
    async with served() as node:
        wire, other = await node.wire(), await node.wire()
        await wire.do("HELLO", 3, "SETNAME", "one")
        assert await wire.do("CLIENT", "SETINFO", "LIB-NAME", "lib") == OK
        assert await wire.do("CLIENT", "SETINFO", "LIB-VER", "1.2") == OK
        assert await wire.do("CLIENT", "SETINFO", "OTHER", "x") == b"-ERR Unrecognized option 'OTHER'\r\n"
        await other.do("SUBSCRIBE", "__keyspace@0__:a")
        plain = await node.wire()
        one, two = await listed(plain, "ID", await number_of(wire), await number_of(wire) + 1)
        assert one["name"] == "one"
        assert (one["lib-name"], one["lib-ver"], one["resp"], one["user"]) == ("lib", "1.2", "3", "default")
        assert one["addr"].startswith("127.0.0.1:")
        assert (two["name"], two["resp"]) == ("", "2")
        assert [line["id"] for line in await listed(plain, "TYPE", "pubsub")] == [two["id"]]
        assert two["id"] not in {line["id"] for line in await listed(plain, "TYPE", "normal")}
        info = (await wire.do("CLIENT", "INFO")).decode()
        assert f"id={one['id']} " in info


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("FOO",), SYNTAX),
        (("TYPE", "x"), b"-ERR Unknown client type 'x'\r\n"),
        (("ID", "0"), b"-ERR Invalid client ID\r\n"),
        (("ID", "x"), b"-ERR Invalid client ID\r\n"),
    ],
)
async def test_a_wrong_option_of_the_list_is_refused(options: tuple[str, ...], error: bytes) -> None:
    async with served() as node:
        assert await (await node.wire()).do("CLIENT", "LIST", *options) == error


async def test_a_user_sees_and_closes_its_own_connections_and_an_administrator_all() -> None:
    async with with_users() as node:
        await node.add_user("ann", "read")
        ann, hers, root = await node.wire("ann", PASSWORD), await node.wire("ann", PASSWORD), await node.wire()
        await root.do("AUTH", "admin", PASSWORD)
        assert {line["user"] for line in await listed(ann)} == {"ann"}
        assert len(await listed(ann)) == 2
        assert {line["user"] for line in await listed(root)} == {"ann", "admin"}
        assert await ann.do("CLIENT", "KILL", "ID", await number_of(root)) == b":0\r\n"
        assert await root.do("PING") == b"+PONG\r\n"
        assert await ann.do("CLIENT", "KILL", "ID", await number_of(hers)) == b":1\r\n"
        assert await hers.reply() == b""
        assert await root.do("CLIENT", "KILL", "USER", "ann") == b":1\r\n"
        assert await ann.reply() == b""


async def test_connections_are_closed_by_their_address_and_by_several_conditions() -> None:
    async with served() as node:
        wire, other = await node.wire(), await node.wire()
        (mine, its) = await listed(wire)
        assert await wire.do("CLIENT", "KILL", "ID", its["id"], "TYPE", "pubsub") == b":0\r\n"
        assert await wire.do("CLIENT", "KILL", "ID", its["id"], "MAXAGE", 1000) == b":0\r\n"
        assert await wire.do("CLIENT", "KILL", "ID", mine["id"]) == b":0\r\n"  # it skips itself
        assert await wire.do("CLIENT", "KILL", its["addr"]) == OK
        assert await other.reply() == b""
        assert await wire.do("CLIENT", "KILL", "1.2.3.4:5") == b"-ERR No such client\r\n"
        assert await wire.do("CLIENT", "KILL", "ID", mine["id"], "SKIPME", "no") == b":1\r\n"
        assert await wire.reply() == b""


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("ID", "0"), b"-ERR client-id should be greater than 0\r\n"),
        (("ID", "x"), b"-ERR client-id should be greater than 0\r\n"),
        (("MAXAGE", "x"), b"-ERR value is not an integer or out of range\r\n"),
        (("TYPE", "x"), b"-ERR Unknown client type 'x'\r\n"),
        (("SKIPME", "x"), SYNTAX),
        (("FOO", "x"), SYNTAX),
        (("ID", "1", "TYPE"), SYNTAX),
    ],
)
async def test_a_wrong_condition_closes_nothing(options: tuple[str, ...], error: bytes) -> None:
    async with served() as node:
        assert await (await node.wire()).do("CLIENT", "KILL", *options) == error


async def test_what_nothing_has_to_be_done_for_is_taken() -> None:
    async with served() as node:
        wire = await node.wire()
        for part in ("NO-EVICT", "NO-TOUCH"):
            assert await wire.do("CLIENT", part, "on") == OK
            assert await wire.do("CLIENT", part, "x") == SYNTAX
        assert await wire.do("CLIENT", "PAUSE", 1) == b"-ERR unknown subcommand 'PAUSE'. Try CLIENT HELP.\r\n"
        assert b"+SETNAME\r\n" in await wire.do("CLIENT", "HELP")
