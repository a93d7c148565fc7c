"""How many connections leave descriptors for the log (protocol, section 8)."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

import haptera
from haptera.errors import ConfigurationError
from haptera.node.descriptors import (
    LOCAL_CONNECTIONS_MAX,
    PER_LISTENER,
    RESERVED,
    connections_max,
    needed,
    raise_limit,
)
from haptera.node.listening import NodeServer
from haptera.testing import node
from haptera.transport import Pool

if TYPE_CHECKING:
    from pathlib import Path


def limited(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))


@pytest.mark.parametrize(
    ("limit", "listeners", "expected"),
    [
        (resource.RLIM_INFINITY, 1, 10_000),
        (1_048_576, 1, 10_000),
        (1_048_576, 64, 10_000),
        (needed(10_000, 1), 1, 10_000),
        (needed(10_000, 1) - 1, 1, 9_999),
        (1024, 1, 384),
        (1024, 2, 251),
        (1024, 0, 781),
        (256, 1, 77),
        (128, 1, 16),
        (98, 1, 1),
    ],
)
def test_connections_are_as_many_as_wanted_or_as_there_can_be(
    limit: int, listeners: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(monkeypatch, limit)
    assert connections_max(10_000, listeners) == expected
    assert connections_max(1, listeners) == 1


@pytest.mark.parametrize("listeners", [0, 1, 2, 64])
def test_what_listeners_can_have_at_most_is_all_that_there_is_and_no_more(
    listeners: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in range(needed(1, listeners), needed(1, listeners) + 4096, 7):
        limited(monkeypatch, limit)
        connections = connections_max(100_000, listeners)
        assert needed(connections, listeners) <= limit
        assert connections == 100_000 or needed(connections + 1, listeners) > limit


@pytest.mark.parametrize("connections", [1, 16, 63, 64, 65, 1000, 1024, 10_000])
async def test_those_that_are_being_refused_are_counted_as_a_listener_bounds_them(connections: int) -> None:
    def leaving(connections: int) -> int:
        return Pool(lambda *_, **__: None, max_connections=connections)._max_leaving

    local = min(connections, LOCAL_CONNECTIONS_MAX)
    expected = RESERVED + 2 * PER_LISTENER + connections + leaving(connections) + local + leaving(local)
    assert needed(connections, 1) == expected


@pytest.mark.parametrize("limit", [0, 64, 97])
def test_too_few_descriptors_for_any_connection_are_told(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, limit)
    with pytest.raises(ConfigurationError, match=rf"{limit} open files \(ulimit -n\) .* needs 98 at least"):
        connections_max(10_000, 1)


async def test_a_node_takes_fewer_connections_and_says_what_helps(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    limited(monkeypatch, 256)
    async with node(storage="memory", listen="tcp", max_connections=500) as url:
        assert isinstance(url.server, NodeServer)
        assert {server._pool._max_connections for server in url.server._servers} == {77}
        (told,) = [vars(record) for record in caplog.records if record.getMessage() == "fewer_connections"]
        assert (told["max_connections"], told["configured"]) == (77, 500)
        assert f"ulimit -n {needed(500, 1)}," in told["help"]
    caplog.clear()
    async with node(storage="memory", listen="tcp", max_connections=77):
        assert "fewer_connections" not in caplog.messages


async def test_the_local_socket_has_fewer_connections_than_a_listener(
    monkeypatch: pytest.MonkeyPatch, short_path: Path
) -> None:
    limited(monkeypatch, 1_048_576)
    async with node(data_dir=short_path, listen="haptera://127.0.0.1:0", max_connections=5000) as url:
        assert isinstance(url.server, NodeServer)
        assert [server._pool._max_connections for server in url.server._servers] == [LOCAL_CONNECTIONS_MAX, 5000]


@pytest.mark.parametrize("refused", [None, ValueError, OSError])
def test_the_soft_limit_is_raised_to_the_hard_one_where_the_system_lets_it(
    refused: type[Exception] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []

    def setrlimit(_: int, limits: tuple[int, int]) -> None:
        asked.append(limits)
        if refused is not None:
            raise refused

    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    raise_limit()
    assert asked == [(4096, 4096)]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="descriptors are counted in /proc")
async def test_a_burst_of_connections_takes_no_more_descriptors_at_once_than_are_counted_for_it() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    async with await haptera.listen("haptera://127.0.0.1:0", max_connections=5) as server:
        port = int(server.url.rsplit(":", 1)[1])
        with ExitStack() as clients:
            for _ in range(300):  # all of them before the loop has a turn: the kernel keeps them
                clients.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            most = 0
            while len(server.peers) + server.refused < 300:
                await asyncio.sleep(0)
                most = max(most, descriptors() - before - 300)
            assert len(server.peers) <= 5
            assert most <= needed(5, 1) - needed(5, 0)
