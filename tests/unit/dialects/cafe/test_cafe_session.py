"""Connections of CAFE at a node: concurrency, replays, damage, bounds and the end."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from haptera.client import connect
from haptera.dialects.cafe import cafe_session
from haptera.errors import AuthenticationLocked
from haptera.security.throttle import ADDRESS_FAILURES
from haptera.testing import virtual_clock
from haptera.wire import Codec
from tests.support.planted import PASSWORD
from tests.unit.dialects.cafe.raw_client import RawClient, cafe_node
from tools.cafe_vectors import (
    BIND,
    CLIENT_NONCE,
    COMPRESSED,
    DEL,
    ENCRYPTED,
    ERR,
    GET,
    NOTFOUND,
    OK,
    SET,
    SHARED_KEY,
    VALUE_FIELD_MAX,
    VALUE_MAX,
    encrypted,
    message,
    zstd_run,
)

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20


@virtual_clock
async def test_the_commands_have_their_answers(tmp_path: Path) -> None:
    async with cafe_node(tmp_path) as url, connect(url.server.urls[1]) as db:
        client = await RawClient.to(url)
        assert (await client.ask(GET, 1, b"a")).opcode == NOTFOUND
        version = (await client.ask(SET, 2, b"a", b"one")).version
        entry = await db.get("a")
        assert entry is not None
        assert (entry.value, entry.version) == (b"one", version)
        assert (await client.ask(GET, 3, b"a"))[:3] == (OK, 3, b"one")
        assert (await client.ask(DEL, 4, b"a")).version == version + 1
        assert (await client.ask(DEL, 5, b"a"))[:3] == (NOTFOUND, 5, b"")
        assert await db.get("a") is None
        client.close()


@virtual_clock
async def test_a_get_overtakes_a_set_that_waits_for_the_disk(tmp_path: Path) -> None:
    async with cafe_node(tmp_path, write_delay=5.0) as url:
        client = await RawClient.to(url)
        client.request(SET, 1, b"a", b"one")
        client.request(GET, 2, b"a")
        loop = asyncio.get_running_loop()
        begun = loop.time()
        assert [each[:2] for each in await client.answers(1)] == [(NOTFOUND, 2)]
        assert loop.time() == begun
        (late,) = await client.answers(1)
        assert late.request_id == 1
        assert loop.time() >= begun + 5.0
        client.close()


@virtual_clock
async def test_a_thousand_gets_among_sets_have_each_their_own_answer(tmp_path: Path) -> None:
    async with cafe_node(tmp_path, write_delay=0.01) as url, connect(url.server.urls[1]) as db:
        for number in range(100):
            await db.set(f"k{number}", b"value %d" % number)
        client = await RawClient.to(url)
        expected: dict[int, bytes | None] = {}
        data = b""
        for request_id in range(1, 1201):
            if request_id % 6:
                number = request_id % 130
                expected[request_id] = b"value %d" % number if number < 100 else None
                data += message(GET, request_id, b"k%d" % number)
            else:
                data += message(SET, request_id, b"new%d" % request_id, b"%d" % request_id)
        client.send(data)
        answers = {each.request_id: each for each in await client.answers(1200)}
        assert len(answers) == 1200
        versions = set()
        for request_id, answer in answers.items():
            if request_id in expected:
                value = expected[request_id]
                assert (answer.opcode, answer.value) == ((NOTFOUND, b"") if value is None else (OK, value))
            else:
                versions.add(answer.version)
        assert len(versions) == 200
        entry = await db.get("new1200")
        assert entry is not None
        assert entry.value == b"1200"
        client.close()


@virtual_clock
async def test_a_repeated_and_an_older_id_change_nothing(tmp_path: Path) -> None:
    async with cafe_node(tmp_path) as url, connect(url.server.urls[1]) as db:
        client = await RawClient.to(url)
        assert (await client.ask(SET, 5, b"a", b"one")).version
        for request_id in (5, 4, 0):
            refused = await client.ask(SET, request_id, b"a", b"two")
            assert (refused.request_id, refused.code) == (request_id, 1008)
        assert (await client.ask(GET, 6, b"a")).value == b"one"
        entry = await db.get("a")
        assert entry is not None
        assert (entry.value, db.revision) == (b"one", entry.version)
        client.close()


@virtual_clock
async def test_a_recorded_connection_is_done_again_without_bind_and_stopped_with_it(tmp_path: Path) -> None:
    async with cafe_node(tmp_path) as url, connect(url.server.urls[1]) as db:
        for bind in (False, True):
            await db.set("a", b"old")
            client = await RawClient.to(url)
            if bind:
                await client.bind()
            assert (await client.ask(SET, 2, b"a", b"recorded")).version
            client.close()
            await db.set("a", b"newer")
            thief = await RawClient.to(url)
            thief.key = SHARED_KEY
            thief.transport.write(client.sent[:64] if bind else client.sent)
            await thief.answers(1)
            if bind:
                thief.checks = False  # it has not the new key, and so cannot read why it is refused
                thief.transport.write(client.sent[64:])
                (refused,) = await thief.ended()
                assert (refused.request_id, refused.code) == (2, 1011)
            entry = await db.get("a")
            assert entry is not None
            assert entry.value == (b"newer" if bind else b"recorded")
            thief.close()


@virtual_clock
async def test_a_listener_may_want_bind(tmp_path: Path) -> None:
    async with cafe_node(tmp_path, "&require_bind=true") as url:
        client = await RawClient.to(url)
        client.request(SET, 1, b"a", b"x")
        (refused,) = await client.ended()
        assert (refused.request_id, refused.code) == (1, 2001)
        client = await RawClient.to(url)
        await client.bind()
        assert (await client.ask(GET, 2, b"a")).opcode == NOTFOUND
        client.close()


@virtual_clock
async def test_a_tampered_bit_anywhere_ends_the_connection_and_changes_nothing(tmp_path: Path) -> None:
    async with cafe_node(tmp_path, max_connections=2000) as url, connect(url.server.urls[1]) as db:
        good = message(SET, 1, b"k", b"v")
        for bit in range(8 * len(good)):
            bad = bytearray(good)
            bad[bit // 8] ^= 1 << bit % 8
            client = await RawClient.to(url)
            client.send(bytes(bad) + message(SET, 2**32 - 1, b"k", b"behind"))
            if 8 * 10 <= bit < 8 * 16:
                client.transport.write_eof()  # a greater length may wait for more
            answers = await client.ended()
            assert [each.code for each in answers] in ([1011], [1002], [1001], [1004], []), bit
            client.close()
        assert await db.get("k") is None
        assert db.revision == 0


@virtual_clock
async def test_a_length_above_the_limit_is_refused_before_anything_of_it_is_kept(tmp_path: Path) -> None:
    async with cafe_node(tmp_path) as url:
        for field, length in (("key_len", 4097), ("value_len", VALUE_FIELD_MAX + 1), ("value_len", 2**32 - 1)):
            client = await RawClient.to(url)
            client.send(message(SET, 1, **{field: length}))  # type: ignore[arg-type]
            (refused,) = await client.ended()
            assert (refused.request_id, refused.code) == (1, 1004)


@virtual_clock
async def test_a_value_that_is_a_little_too_large_is_refused_and_the_connection_goes_on(tmp_path: Path) -> None:
    async with cafe_node(tmp_path) as url:
        client = await RawClient.to(url)
        assert (await client.ask(SET, 1, b"a", bytes(VALUE_MAX + 1))).code == 4007
        assert (await client.ask(SET, 2, b"a", bytes(VALUE_MAX))).version
        assert (await client.ask(GET, 3, b"a")).value == bytes(VALUE_MAX)
        client.close()


@virtual_clock
async def test_a_truncated_message_is_waited_for_in_vain_and_does_nothing(tmp_path: Path) -> None:
    async with cafe_node(tmp_path) as url, connect(url.server.urls[1]) as db:
        first = await RawClient.to(url)
        first.send(message(SET, 1, b"a", b"xyz")[:-1])
        loop = asyncio.get_running_loop()
        begun = loop.time()
        (ended,) = await first.ended()
        assert (ended.request_id, ended.code) == (0, 1012)
        assert loop.time() - begun < 60
        later = await RawClient.to(url)
        assert (await later.ask(GET, 1, b"a")).opcode == NOTFOUND
        later.send(message(SET, 2, b"a", b"xyz")[:-1])
        (ended,) = await later.ended()
        assert (ended.request_id, ended.code) == (0, 1015)
        assert await db.get("a") is None


@virtual_clock
async def test_each_message_has_its_own_time_where_every_read_ends_within_one(tmp_path: Path) -> None:
    async with cafe_node(tmp_path) as url:
        client = await RawClient.to(url)
        await client.ask(GET, 1, b"a")
        rest = b""
        for request_id in range(2, 40):
            data = message(GET, request_id, b"a")
            client.send(rest + data[:20])
            rest = data[20:]
            await asyncio.sleep(5)
        client.send(rest)
        assert len(await client.answers(38)) == 38
        client.close()


@virtual_clock
async def test_a_connection_that_proves_nothing_is_half_open(tmp_path: Path) -> None:
    async with cafe_node(tmp_path) as url:
        client = await RawClient.to(url)
        client.send(message(SET, 1, b"a", b"x")[:20])
        await asyncio.sleep(0.1)
        assert url.server._frontends[0].half_open == 1
        client.send(message(SET, 1, b"a", b"x")[20:])
        await client.answers(1)
        assert url.server._frontends[0].half_open == 0
        client.close()


@virtual_clock
async def test_the_user_of_the_key_is_judged_and_recorded_as_each_other(tmp_path: Path) -> None:
    async with cafe_node(
        tmp_path, no_auth=False, admin_password="correct horse battery", signing_user="nobody-yet"
    ) as url:
        client = await RawClient.to(url)
        answer = await client.ask(SET, 1, b"a", b"x")
        assert answer.code == 2004
        client.close()


@virtual_clock
async def test_encrypted_answers_go_to_encrypted_requests(tmp_path: Path) -> None:
    async with cafe_node(tmp_path) as url:
        client = await RawClient.to(url)
        client.send(encrypted(SET, 1, bytes(12), b"a", b"secret", key=SHARED_KEY))
        client.send(encrypted(SET, 2, bytes(11) + b"\x01", b"", b"", key=SHARED_KEY))
        answers = {each.request_id: each for each in await client.answers(2)}
        assert (answers[1].opcode, answers[1].flags) == (OK, ENCRYPTED)
        assert (answers[2].opcode, answers[2].flags) == (ERR, ENCRYPTED)
        assert (await client.ask(GET, 3, b"a"))[2:] == (b"secret", 0)
        client.close()


@virtual_clock
async def test_a_bomb_is_refused_before_it_is_large(tmp_path: Path) -> None:
    async with cafe_node(tmp_path) as url:
        client = await RawClient.to(url)
        assert (await client.ask(SET, 1, b"a", zstd_run(0, 9, declared=1 << 31), flags=1)).code == 1010
        assert (await client.ask(SET, 2, b"a", zstd_run(0, 9, declared=10), flags=1)).code == 1010
        assert (await client.ask(SET, 3, b"a", zstd_run(0, 9), flags=1)).version
        assert (await client.ask(GET, 4, b"a")).value == bytes(9)
        client.close()


@virtual_clock
async def test_answers_are_compressed_for_a_get_that_asks_for_it(tmp_path: Path) -> None:
    async with cafe_node(tmp_path) as url:
        client = await RawClient.to(url)
        await client.ask(SET, 1, b"long", bytes(100_000))
        await client.ask(SET, 2, b"short", b"x")
        compressed = await client.ask(GET, 3, b"long", flags=1)
        assert compressed.flags == 1
        assert len(compressed.value) < 1000
        assert (await client.ask(GET, 4, b"short", flags=1))[2:] == (b"x", 0)
        client.close()


@virtual_clock
async def test_changes_of_one_connection_are_bounded_and_the_rest_stays_in_the_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cafe_session, "WRITES_MAX", 10)
    async with cafe_node(tmp_path, write_delay=1.0) as url, connect(url.server.urls[1]) as db:
        client = await RawClient.to(url)
        client.send(b"".join(message(SET, each, b"k%d" % each, b"x") for each in range(1, 301)))
        await asyncio.sleep(0.5)
        # A turn's commands may pass the bound once.
        assert url.node._pipeline.pending <= 10 + cafe_session.COMMANDS_PER_TURN
        assert sorted(each.request_id for each in await client.answers(300)) == list(range(1, 301))
        assert await db.count() == 300
        client.close()


@virtual_clock
async def test_a_reader_that_does_not_read_costs_no_more_than_its_bounds(tmp_path: Path) -> None:
    async with cafe_node(tmp_path) as url:
        client = await RawClient.to(url)
        await client.ask(SET, 1, b"a", bytes(MIB))
        client.transport.pause_reading()
        client.send(b"".join(message(GET, each, b"a") for each in range(2, 202)))
        await asyncio.sleep(1)
        (server,) = url.server._frontends
        (connection,) = server.connections
        assert connection._out_size + connection._transport.get_write_buffer_size() < 4 * MIB  # type: ignore[union-attr]
        client.transport.resume_reading()
        assert [each.request_id for each in await client.answers(200)] == list(range(2, 202))
        client.close()


@virtual_clock
async def test_a_lost_connection_takes_its_changes_back_that_the_disk_does_not_have(tmp_path: Path) -> None:
    async with cafe_node(tmp_path, write_delay=1.0) as url, connect(url.server.urls[1]) as db:
        client = await RawClient.to(url)
        client.request(SET, 1, b"with the disk", b"x")
        await asyncio.sleep(0.1)
        client.request(SET, 2, b"waits", b"x")
        await asyncio.sleep(0.1)
        client.transport.abort()
        await asyncio.sleep(5)
        assert await db.get("with the disk") is not None
        assert await db.get("waits") is None


@virtual_clock
async def test_a_node_that_stops_answers_the_changes_under_way(tmp_path: Path) -> None:
    client: RawClient
    async with cafe_node(tmp_path, write_delay=1.0) as url:
        client = await RawClient.to(url)
        client.request(SET, 1, b"a", b"x")
        await asyncio.sleep(0.1)
        stopping = asyncio.ensure_future(url.server.drain(10.0))
        answers = await client.ended()
        await stopping
    assert [(each.opcode, each.request_id) for each in answers] == [(OK, 1), (ERR, 0)]
    assert answers[1].code == 1014


@virtual_clock
async def test_a_connection_too_many_is_told_so_in_the_words_of_cafe(tmp_path: Path) -> None:
    async with cafe_node(tmp_path, max_connections=1) as url:
        first = await RawClient.to(url)
        assert (await first.ask(GET, 1, b"a")).opcode == NOTFOUND
        second = await RawClient.to(url)
        (refused,) = await second.ended()
        assert (refused.request_id, refused.code) == (0, 1013)
        first.close()


@virtual_clock
async def test_a_connection_with_another_key_is_told_and_logged_without_a_byte_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with cafe_node(tmp_path) as url:
        with caplog.at_level("INFO"):
            client = await RawClient.to(url, bytes(32))
            client.checks = False  # nothing of this node's is right by its key
            client.request(SET, 1, b"private", b"secret")
            (refused,) = await client.ended()
        assert refused.code == 1011
        (line,) = [each for each in caplog.records if each.message == "connection_ended"]
        assert vars(line)["code"] == 1011
        assert not any("private" in str(vars(each)) or SHARED_KEY.hex() in str(vars(each)) for each in caplog.records)


@virtual_clock
async def test_a_connection_with_another_key_is_a_failed_login_of_its_address(tmp_path: Path) -> None:
    async with cafe_node(tmp_path, no_auth=False, admin_password=PASSWORD) as url:
        metrics, failures = url.node.metrics, ADDRESS_FAILURES
        for number in range(1, failures + 1):
            client = await RawClient.to(url, bytes(32))
            client.checks = False
            client.request(GET, 1, b"a")
            assert [each.code for each in await client.ended()] == [1011]
            assert metrics.logins_failed_total == number
        async with connect(url.server.urls[1], user="admin", password=PASSWORD) as db:
            with pytest.raises(AuthenticationLocked):
                await db.get("a")
        await url.node.audit.written()
        fs = url.filesystem
        assert fs is not None
        text = b"".join(fs.read(f"/data/audit/{name}") for name in sorted(fs.listdir("/data/audit")))
        assert text.count(b"was not made with the key of the listener") == failures


@virtual_clock
async def test_a_damaged_message_behind_a_proof_is_no_failed_login(tmp_path: Path) -> None:
    async with cafe_node(tmp_path, no_auth=False, admin_password=PASSWORD) as url:
        client = await RawClient.to(url)
        assert (await client.ask(GET, 1, b"a")).opcode == NOTFOUND
        client.send(message(GET, 2, b"a", key=bytes(32)))
        assert [each.code for each in await client.ended()] == [1011]
        assert url.node.metrics.logins_failed_total == 0


@virtual_clock
async def test_others_are_unharmed_by_rubbish(tmp_path: Path) -> None:
    async with cafe_node(tmp_path) as url:
        good = await RawClient.to(url)
        await good.bind()
        for rubbish in (b"\x00" * 100, b"*1\r\n$4\r\nPING\r\n", b"\xca\xfe" + b"\xff" * 100, b"\x16\x03\x01"):
            bad = await RawClient.to(url)
            bad.send(rubbish)
            (refused,) = await bad.ended()
            assert refused.code in {1001, 1002, 1004}
        assert (await good.ask(SET, 2, b"a", b"x")).version
        assert (await good.ask(BIND, 3, b"", CLIENT_NONCE)).code == 1008
        good.close()


@virtual_clock
async def test_large_answers_are_compressed_in_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turn, compressed = 0, Counter[int]()
    compress = Codec.compress

    def counted(codec: Codec, payload: bytes) -> bytes:
        compressed[turn] += 1
        return compress(codec, payload)

    async def count_turns() -> None:
        nonlocal turn
        while True:
            await asyncio.sleep(0)
            turn += 1

    monkeypatch.setattr(Codec, "compress", counted)
    async with cafe_node(tmp_path) as url:
        client = await RawClient.to(url)
        assert (await client.ask(SET, 1, b"a", bytes(MIB))).version
        counting = asyncio.create_task(count_turns())
        client.send(b"".join(message(GET, request_id, b"a", flags=COMPRESSED) for request_id in range(2, 34)))
        answers = await client.answers(32)
        counting.cancel()
        assert [each.request_id for each in answers] == list(range(2, 34))
        client.close()
    assert compressed.total() == 32
    assert max(compressed.values()) == 1
