"""The login, the version of the protocol, the end of a connection, and signs of life."""

from __future__ import annotations

import pytest

from tests.unit.dialects.resp.served import PASSWORD, served, with_users

pytestmark = pytest.mark.usefixtures("quick_passwords")

OK = b"+OK\r\n"
NO_LOGIN = b"-NOAUTH Authentication required.\r\n"
WRONG = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"


async def test_a_connection_logs_in_with_a_name_and_a_password() -> None:
    async with with_users() as node:
        wire = await node.wire()
        assert await wire.do("GET", "a") == NO_LOGIN
        assert await wire.do("AUTH", "admin", "wrong") == WRONG
        assert await wire.do("GET", "a") == NO_LOGIN
        assert await wire.do("AUTH", "admin", PASSWORD) == OK
        assert await wire.do("SET", "a", 1) == OK
        assert await wire.do("ACL", "WHOAMI") == b"$5\r\nadmin\r\n"


async def test_a_password_without_a_name_is_that_of_the_user_default() -> None:
    async with with_users() as node:
        wire = await node.wire()
        assert await wire.do("AUTH", PASSWORD) == WRONG
        await node.add_user("default", "read")
        assert await wire.do("AUTH", PASSWORD) == OK
        assert await wire.do("ACL", "WHOAMI") == b"$7\r\ndefault\r\n"
        assert (await wire.do("SET", "a", 1)).startswith(b"-NOPERM")


async def test_a_failed_login_leaves_the_user_of_before() -> None:
    async with with_users() as node:
        wire = await node.wire("admin", PASSWORD)
        assert await wire.do("AUTH", "admin", "wrong") == WRONG
        assert await wire.do("ACL", "WHOAMI") == b"$5\r\nadmin\r\n"


@pytest.mark.parametrize("name", [b"\xff", b"", b"no one", b"n" * 5000])
async def test_a_name_that_no_user_can_have_is_a_wrong_one(name: bytes) -> None:
    async with with_users() as node:
        wire = await node.wire()
        assert await wire.do("AUTH", name, PASSWORD) == WRONG
        assert await wire.do("AUTH", "admin", b"\xff") == WRONG


async def test_a_node_without_users_says_so_to_a_password() -> None:
    async with served() as node:
        wire = await node.wire()
        assert (await wire.do("AUTH", "secret")).startswith(b"-ERR AUTH <password> called without any password")
        assert await wire.do("AUTH", "admin", "secret") == WRONG
        assert await wire.do("AUTH", "a", "b", "c") == b"-ERR syntax error\r\n"


async def test_hello_logs_in_names_the_connection_and_chooses_the_version() -> None:
    async with with_users() as node:
        wire = await node.wire()
        assert (await wire.do("HELLO", 3)).startswith(b"-NOAUTH HELLO must be called")
        assert await wire.do("HELLO", 3, "AUTH", "admin", "wrong", "SETNAME", "x") == WRONG
        greeting = await wire.do("HELLO", 3, "AUTH", "admin", PASSWORD, "SETNAME", "worker")
        assert greeting.startswith(b"%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n")
        assert await wire.do("GET", "missing") == b"_\r\n"
        assert await wire.do("CLIENT", "GETNAME") == b"$6\r\nworker\r\n"
        assert (await wire.do("HELLO", 2)).startswith(b"*14\r\n")
        assert await wire.do("GET", "missing") == b"$-1\r\n"


async def test_hello_changes_nothing_where_a_part_of_it_is_wrong() -> None:
    async with served() as node:
        wire = await node.wire()
        wrong: list[tuple[tuple[str | int, ...], bytes]] = [
            ((4,), b"-NOPROTO unsupported protocol version\r\n"),
            (("x",), b"-ERR Protocol version is not an integer or out of range\r\n"),
            (
                (3, "SETNAME", "two words"),
                b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n",
            ),
            ((3, "SETNAME"), b"-ERR Syntax error in HELLO option 'SETNAME'\r\n"),
            ((3, "AUTH", "a"), b"-ERR Syntax error in HELLO option 'AUTH'\r\n"),
            ((3, "SETNAME", "x", "OTHER"), b"-ERR Syntax error in HELLO option 'OTHER'\r\n"),
        ]
        for words, error in wrong:
            assert await wire.do("HELLO", *words) == error
        assert await wire.do("GET", "missing") == b"$-1\r\n"
        assert await wire.do("CLIENT", "GETNAME") == b"$-1\r\n"


async def test_reset_makes_the_connection_as_it_was_when_it_began() -> None:
    async with with_users() as node:
        wire = await node.wire("admin", PASSWORD)
        await wire.do("HELLO", 3, "SETNAME", "worker")
        await wire.do("MULTI")
        assert await wire.do("RESET") == b"+RESET\r\n"
        assert await wire.do("GET", "a") == NO_LOGIN
        assert await wire.do("AUTH", "admin", PASSWORD) == OK
        assert await wire.do("CLIENT", "GETNAME") == b"$-1\r\n"
        assert await wire.do("EXEC") == b"-ERR EXEC without MULTI\r\n"


async def test_quit_is_answered_and_ends_the_connection() -> None:
    async with served() as node:
        wire = await node.wire()
        assert await wire.do("QUIT") == OK
        assert await wire.reply() == b""


async def test_signs_of_life_and_the_one_database() -> None:
    async with served() as node:
        wire = await node.wire()
        assert await wire.do("PING") == b"+PONG\r\n"
        assert await wire.do("PING", "x") == await wire.do("ECHO", "x") == b"$1\r\nx\r\n"
        assert await wire.do("PING", "x", "y") == b"-ERR wrong number of arguments for 'ping' command\r\n"
        assert await wire.do("SELECT", 0) == OK
        assert await wire.do("SELECT", 1) == b"-ERR DB index is out of range\r\n"
        assert await wire.do("SELECT", 2**31) == b"-ERR value is not an integer or out of range\r\n"
        seconds, _ = (await wire.do("TIME")).split(b"\r\n")[2::2][:2]
        assert int(seconds) > 1_700_000_000
