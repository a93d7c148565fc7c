"""INFO, CONFIG and the commands about durability, as a user with each permission sees them."""

from __future__ import annotations

import pytest

from tests.unit.dialects.resp.served import PASSWORD, Wire, served, with_users

pytestmark = pytest.mark.usefixtures("quick_passwords")

OK = b"+OK\r\n"


async def fields(wire: Wire, *sections: str) -> dict[str, str]:
    """The fields of INFO, as an exporter reads them."""
    text = await wire.text("INFO", *sections)
    return dict(line.split(":", 1) for line in text.split("\r\n") if line and not line.startswith("#"))


async def titles(wire: Wire, *sections: str) -> list[str]:
    """The sections that INFO gives."""
    text = await wire.text("INFO", *sections)
    return [line[2:] for line in text.split("\r\n") if line.startswith("# ")]


async def test_info_has_the_fields_that_exporters_read() -> None:
    async with served() as node:
        wire = await node.wire()
        await wire.do("SET", "a", 1)
        await wire.do("SET", "b", 1, "EX", 1000)
        found = await fields(wire)
        assert found["role"] == "master"
        assert found["redis_mode"] == "standalone"
        assert int(found["connected_clients"]) >= 1
        assert int(found["used_memory"]) > 0
        assert int(found["used_memory_rss"]) > 1_000_000
        assert int(found["total_commands_processed"]) >= 2
        assert float(found["used_cpu_user"]) > 0
        assert found["db0"] == "keys=2,expires=1,avg_ttl=0"
        assert len(found["run_id"]) == 40
        assert (found["aof_last_write_status"], found["loading"]) == ("ok", "0")


async def test_info_gives_the_sections_that_are_asked_for_in_its_own_order() -> None:
    async with served() as node:
        wire = await node.wire()
        assert await titles(wire, "keyspace", "SERVER", "nothing") == ["Server", "Keyspace"]
        assert await titles(wire, "nothing") == []
        usual = await titles(wire)
        assert usual == await titles(wire, "default")
        assert "Commandstats" not in usual
        assert set(await titles(wire, "everything")) - set(usual) == {"Commandstats", "Latencystats"}


async def test_without_metrics_info_and_config_leave_out_what_tells_of_others() -> None:
    async with with_users() as node:
        await node.add_user("ann", "read")
        await node.add_user("eve", "metrics")
        ann, eve = await node.wire("ann", PASSWORD), await node.wire("eve", PASSWORD)
        assert await titles(ann, "all") == ["Server", "Replication", "Modules", "Cluster"]
        assert "Keyspace" in await titles(eve, "all")
        assert b"maxmemory\r\n" not in await ann.do("CONFIG", "GET", "max*")
        assert b"maxmemory\r\n" in await eve.do("CONFIG", "GET", "max*")


async def test_config_get_tells_parameters_by_patterns() -> None:
    async with served() as node:
        wire = await node.wire()
        assert await wire.do("CONFIG", "GET", "databases") == b"*2\r\n$9\r\ndatabases\r\n$1\r\n1\r\n"
        assert await wire.do("CONFIG", "GET", "APPEND*", "save", "nothing") == (
            b"*6\r\n$11\r\nappendfsync\r\n$6\r\nalways\r\n$10\r\nappendonly\r\n$3\r\nyes\r\n$4\r\nsave\r\n$0\r\n\r\n"
        )
        assert await wire.do("CONFIG", "GET", "nothing") == b"*0\r\n"
        await wire.do("HELLO", 3)
        assert (await wire.do("CONFIG", "GET", "timeout")).startswith(b"%1\r\n")


async def test_config_set_takes_what_holds_already_and_nothing_else() -> None:
    async with with_users() as node:
        await node.add_user("ann", "read")
        root, ann = await node.wire("admin", PASSWORD), await node.wire("ann", PASSWORD)
        assert await root.do("CONFIG", "SET", "save", "", "databases", 1) == OK
        assert await root.do("CONFIG", "SET", "notify-keyspace-events", "Ex") == OK
        assert (await root.do("CONFIG", "SET", "save", "", "maxmemory", 5)).startswith(
            b"-ERR CONFIG SET failed (possibly"
        )
        assert await root.do("CONFIG", "SET", "nothing", 1) == (
            b"-ERR Unknown option or number of arguments for CONFIG SET - 'nothing'\r\n"
        )
        assert await root.do("CONFIG", "SET", "save", "", "x") == b"-ERR syntax error\r\n"
        assert (await ann.do("CONFIG", "SET", "save", "")).startswith(b"-NOPERM")


@pytest.mark.parametrize(("durability", "synced"), [("sync", b"*2\r\n:1\r\n:0\r\n"), ("os", b"*2\r\n:0\r\n:0\r\n")])
async def test_waits_tell_at_once_what_is_durable(durability: str, synced: bytes) -> None:
    async with served(durability=durability) as node:
        wire = await node.wire()
        assert await wire.do("WAIT", 1, 0) == b":0\r\n"
        assert await wire.do("WAIT", "x", 0) == b"-ERR value is not an integer or out of range\r\n"
        assert await wire.do("WAIT", 0, -1) == b"-ERR timeout is negative\r\n"
        assert await wire.do("WAIT", 0, "x") == b"-ERR timeout is not an integer or out of range\r\n"
        assert await wire.do("WAITAOF", 0, 0, 0) == synced
        local = await wire.do("WAITAOF", 1, 0, 0)
        assert local == synced if durability == "sync" else local.startswith(b"-ERR WAITAOF cannot be used")
        assert (await wire.do("WAITAOF", 2, 0, 0)).startswith(b"-ERR value is out of range")


async def test_debug_sleep_is_for_listeners_that_take_it_and_for_administrators() -> None:
    async with with_users() as node:
        assert (await (await node.wire("admin", PASSWORD)).do("DEBUG", "SLEEP", 0)).startswith(
            b"-ERR DEBUG command not"
        )
    async with served("?debug=yes") as node:
        wire, other = await node.wire(), await node.wire()
        assert await wire.do("DEBUG", "SLEEP", "0.01") == OK
        assert (await wire.do("DEBUG", "SLEEP", -1)).startswith(b"-ERR value is out of range")
        assert (await wire.do("DEBUG", "OBJECT", "a")).startswith(b"-ERR unknown subcommand or wrong number")
        assert await other.do("PING") == b"+PONG\r\n"


async def test_there_are_no_functions_and_no_modules() -> None:
    async with served() as node:
        wire = await node.wire()
        assert await wire.do("FUNCTION", "FLUSH") == await wire.do("FUNCTION", "FLUSH", "async") == OK
        assert await wire.do("FUNCTION", "FLUSH", "x") == b"-ERR FUNCTION FLUSH only supports SYNC|ASYNC option\r\n"
        assert await wire.do("FUNCTION", "LIST") == await wire.do("MODULE", "LIST") == b"*0\r\n"
        assert await wire.do("FUNCTION", "LOAD", "x") == b"-ERR unknown subcommand 'LOAD'. Try FUNCTION HELP.\r\n"
        assert int((await wire.do("LASTSAVE"))[1:-2]) > 1_700_000_000


async def test_the_patterns_of_one_config_get_are_bounded_together() -> None:
    async with served() as node:
        wire = await node.wire()
        too_long = b"-ERR the patterns are too long together: 4096 bytes at most\r\n"
        assert await wire.do("CONFIG", "GET", "a" * 20_000) == too_long
        assert await wire.do("CONFIG", "GET", *[f"{number}[^a]*" for number in range(20_000)]) == too_long
        assert await wire.do("CONFIG", "GET", *["no such"] * 100, "SAVE") == b"*2\r\n$4\r\nsave\r\n$0\r\n\r\n"
