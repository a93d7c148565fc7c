"""RedisInsight's commands when it opens a database, lists its keys, and shows and changes a value.

They are those of its sources (redisinsight/api/src/modules: database-info, keys, string and slow-log).
"""

from __future__ import annotations

from tests.unit.dialects.resp.served import Wire, served

OK = b"+OK\r\n"


async def fields_of(wire: Wire, *section: str) -> dict[str, str]:
    """The fields of INFO."""
    return dict(line.split(":", 1) for line in (await wire.text("INFO", *section)).splitlines() if ":" in line)


async def test_a_database_is_opened() -> None:
    async with served() as node:
        wire = await node.wire()
        assert await wire.do("CLIENT", "SETINFO", "LIB-NAME", "ioredis") == OK
        assert await wire.do("CLIENT", "SETNAME", "redisinsight-common-1a2b3c4d") == OK
        assert b"standalone" in await wire.do("HELLO")
        assert await wire.do("MODULE", "LIST") == b"*0\r\n"
        assert await wire.do("CONFIG", "GET", "databases") == b"*2\r\n$9\r\ndatabases\r\n$1\r\n1\r\n"
        await wire.do("SET", "app/a", "1")
        fields = await fields_of(wire)
        assert fields["redis_version"]
        assert (fields["role"], fields["cluster_enabled"]) == ("master", "0")
        assert fields["db0"].startswith("keys=1,")
        for number in (
            "used_memory",
            "connected_clients",
            "uptime_in_seconds",
            "total_commands_processed",
            "maxmemory",
        ):
            assert fields[number].isdigit(), number
        assert (await fields_of(wire, "server")).keys() < fields.keys()
        assert "name=redisinsight-common-1a2b3c4d" in await wire.text("CLIENT", "LIST")
        assert await wire.do("COMMAND", "INFO", "FT.INFO") == b"*1\r\n*-1\r\n"
        for other in (("CLUSTER", "INFO"), ("FT._LIST",), ("TFUNCTION", "LIST"), ("SENTINEL", "masters")):
            assert (await wire.do(*other)).startswith(b"-ERR unknown command")


async def test_keys_are_listed_with_their_sizes_types_and_times() -> None:
    async with served() as node:
        wire = await node.wire()
        await wire.do("MSET", "app/a", "1", "other", "2")
        assert await wire.do("DBSIZE") == b":2\r\n"
        listed = await wire.do("SCAN", 0, "MATCH", "app/*", "COUNT", 500, "TYPE", "string")
        assert listed == b"*2\r\n$1\r\n0\r\n*1\r\n$5\r\napp/a\r\n"
        assert (await wire.do("MEMORY", "USAGE", "app/a", "samples", 0)).startswith(b":")
        assert await wire.do("TYPE", "app/a") == b"+string\r\n"
        assert await wire.do("TTL", "app/a") == b":-1\r\n"


async def test_a_value_is_shown_in_parts_and_changed() -> None:
    async with served() as node:
        wire = await node.wire()
        assert await wire.do("SET", "a", b"x" * 9000, "NX", "EX", 100) == OK
        assert await wire.do("EXISTS", "a") == b":1\r\n"
        assert await wire.do("STRLEN", "a") == b":9000\r\n"
        assert await wire.do("GETRANGE", "a", 0, 4999) == b"$5000\r\n" + b"x" * 5000 + b"\r\n"
        assert await wire.do("TTL", "a") in {b":100\r\n", b":99\r\n"}
        assert await wire.do("SET", "a", "short", "XX") == OK
        assert await wire.do("EXPIRE", "a", 50) == b":1\r\n"
        assert await wire.do("PERSIST", "a") == b":1\r\n"
        assert await wire.do("RENAMENX", "a", "b") == b":1\r\n"
        assert await wire.do("DEL", "b") == b":1\r\n"


async def test_the_slow_log_is_asked_for() -> None:
    async with served() as node:
        wire = await node.wire()
        assert await wire.do("SLOWLOG", "GET", 50) == b"*0\r\n"
        assert (await wire.do("CONFIG", "GET", "slowlog*")).startswith(b"*4\r\n")
