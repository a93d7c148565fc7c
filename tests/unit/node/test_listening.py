"""A node's listeners, and the socket in its data directory."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from haptera.errors import ConfigurationError, ConnectionLost, ServerError
from haptera.node.config import NodeConfig
from haptera.node.listening_checks import check_listening
from haptera.peer import dial, listen
from haptera.testing import node
from haptera.transport import url_of
from haptera.wire.frame import MORE, FrameType, encode_frame
from tests.support.planted import SIGNING_KEY as KEY
from tests.unit.peer.raw import RawPeer, hello, request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from haptera.node.listening import NodeServer
    from haptera.peer import Server

KIB = 1024
ANY_PORT = "haptera://127.0.0.1:0"
encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode


@asynccontextmanager
async def serving(path: Path, *addresses: str, **options: Any) -> AsyncIterator[NodeServer]:
    async with node(data_dir=path, listen=addresses or ANY_PORT, **options) as url:
        yield url.server


def said(code: int) -> bytes:
    """The ERROR of a connection."""
    reason = {"code": code, "name": "IT", "message": "why", "outcome": "unknown", "details": {}}
    return encode_frame(FrameType.ERROR, 0, 0, b"", encode(reason))


async def whoami(url: str) -> dict[str, Any]:
    peer = await dial(url)
    try:
        answer: dict[str, Any] = decode(await peer.call("session", "whoami", encode([])))
        return answer
    finally:
        await peer.aclose()


async def test_every_address_and_the_local_socket_serve_the_node(tmp_path: Path) -> None:
    unix = f"haptera+unix://{tmp_path}/other"
    async with serving(tmp_path / "d", ANY_PORT, unix) as server:
        local = tmp_path / "d" / "haptera.sock"
        assert server.local_socket == str(local)
        assert server.urls[1:] == [unix, f"haptera+unix://{local}"]
        assert server.urls[0] != ANY_PORT
        for url in server.urls:
            assert await whoami(url) == {"user": "", "roles": [], "mechanism": "", "secure": False}
        assert stat.S_IMODE(local.stat().st_mode) == 0o600
    assert not local.exists()


async def test_the_local_socket_takes_connections_before_any_address_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that waits for the node of this directory would be refused at the port for want of a login."""
    local = url_of(str(tmp_path / "d" / "haptera.sock"))
    mechanisms: list[str] = []

    async def look_and_listen(url: str, **keywords: Any) -> Server:
        if url != local:
            mechanisms.append((await whoami(local))["mechanism"])
        return await listen(url, **keywords)

    monkeypatch.setattr("haptera.node.listening.listen", look_and_listen)
    async with serving(tmp_path / "d", ANY_PORT, f"haptera+unix://{tmp_path}/other"):
        assert mechanisms == ["", ""]


async def test_the_local_socket_may_be_named_among_the_addresses(tmp_path: Path) -> None:
    local = url_of(str(tmp_path / "d" / "haptera.sock"))
    async with serving(tmp_path / "d", local, ANY_PORT) as server:
        assert server.urls[::2] == [local, local]
        for url in server.urls:
            await whoami(url)


async def test_connections_are_counted(tmp_path: Path) -> None:
    async with serving(tmp_path / "d") as server:
        served = server._node
        peers = [await dial(server.urls[0]) for _ in range(3)]
        status = decode(await peers[0].call("server", "status", encode([])))
        await peers[1].ready()
        await peers[2].ready()
        assert (status["authentication"], served.connections) == (False, 3)
        for peer in peers:
            await peer.aclose()
        while served.connections:
            await asyncio.sleep(0.001)
        assert served.metrics.connections_total == 3


async def test_what_connections_do_is_measured_while_they_last_and_after(tmp_path: Path) -> None:
    async with serving(tmp_path / "d") as server:
        served = server._node
        peer = await dial(server.urls[0], grease=False)
        await peer.call("kv", "set", encode(["key", b"value"]))
        with pytest.raises(ServerError, match="UNKNOWN_SERVICE"):
            await peer.call("nowhere", "nothing")
        watch = aiter(peer.stream("server", "watch_metrics", encode([{"interval_ms": 3_600_000}])))
        _, sample = decode(await anext(watch))
        assert (sample["requests_in_flight"], sample["requests_received_total"]) == (1, 3)
        values = served.metrics.values()
        assert values["wire_received_frames_total"] == peer.frames_sent == 4  # HELLO and three requests
        assert values["wire_sent_frames_total"] == peer.frames_received >= 4  # WELCOME, two answers, an item
        await peer.aclose()
        while served.connections:
            await asyncio.sleep(0.001)
        after = served.metrics.values()
        assert (after["requests_in_flight"], after["requests_received_total"]) == (0, 3)
        assert after["wire_received_frames_total"] >= 4
        assert after["wire_sent_frames_total"] >= values["wire_sent_frames_total"]


@pytest.mark.parametrize(
    ("sent", "metric"),
    [
        (b"EHLO example.org\r\n", 'protocol_errors_total{code="1002"}'),
        (hello() + said(1003), 'protocol_errors_reported_total{code="1003"}'),
        (hello() + said(4242), 'protocol_errors_reported_total{code="other"}'),
    ],
    ids=["no frame", "an error is told", "an unknown error is told"],  # those of random bytes differ between processes
)
async def test_what_ends_a_connection_is_counted_by_code_and_by_who_found_it(
    tmp_path: Path, sent: bytes, metric: str
) -> None:
    async with serving(tmp_path / "d") as server:
        for _ in range(2):
            raw = await RawPeer.open(server.urls[0])
            await raw.send(sent)
            await raw.read_to_end()
            await raw.close()
        while server._node.connections:
            await asyncio.sleep(0.001)
        assert {name: value for name, value in server._node.metrics.values().items() if "protocol_errors" in name} == {
            metric: 2
        }


async def test_describe_lists_what_there_is(tmp_path: Path) -> None:
    async with serving(tmp_path / "d") as server:
        peer = await dial(server.urls[0])
        services = dict(decode(await peer.call("session", "describe", encode([]))))
        assert services["session"] == ["describe", "whoami"]
        longer = ["backup", "doctor", "maintenance", "rotate_key", "snapshot", "watch_metrics"]
        assert sorted(services["server"]) == sorted(["status", "health", "metrics", *longer])
        assert {"get", "set", "scan", "clear"} <= set(services["kv"])
        with pytest.raises(ServerError, match="UNKNOWN_METHOD"):
            await peer.call("kv", "transact", encode([]))
        await peer.aclose()


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "signing.key"
    path.write_bytes(KEY)
    path.chmod(0o600)
    return path


async def test_with_a_key_every_listener_signs_and_the_local_socket_does_not(
    tmp_path: Path, key_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path / "d", ANY_PORT, signing_key_file=str(key_file), no_auth=False) as server:
        url, local = server.urls
        peer = await dial(url, signing_key=KEY)
        assert decode(await peer.call("session", "whoami", encode([])))["mechanism"] == "PSK"
        assert decode(await peer.call("server", "status", encode([])))["authentication"] is True
        assert "hmac_sha256" in peer.capabilities
        await peer.aclose()
        for key in (None, bytes(32)):
            peer = await dial(url, signing_key=key)
            with pytest.raises(ConnectionLost, match="SIGNATURE_MISMATCH"):
                await peer.call("server", "status", encode([]))
            await peer.aclose()
        assert (await whoami(local))["user"] == "local"
    assert not any(secret in caplog.text for secret in (KEY.decode(), KEY.hex(), repr(KEY)))


async def test_a_key_file_that_others_may_read_is_warned_of(
    tmp_path: Path, key_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key_file.chmod(0o640)
    async with serving(tmp_path / "d", ANY_PORT, signing_key_file=str(key_file)):
        assert "key_file_open_to_others" in caplog.text


async def test_a_key_that_is_too_short_is_refused(tmp_path: Path, key_file: Path) -> None:
    key_file.write_bytes(KEY[:31])
    with pytest.raises(ConfigurationError, match="32") as error:
        async with serving(tmp_path / "d", ANY_PORT, signing_key_file=str(key_file)):
            pass
    assert KEY[:31].decode() not in str(error.value)


async def test_limits_are_those_of_the_configuration(tmp_path: Path) -> None:
    async with serving(tmp_path / "d", ANY_PORT, max_connections=1, max_message=1 << 17) as server:
        peer = await dial(server.urls[0])
        await peer.ready()
        assert peer.max_message == 1 << 17
        second = await dial(server.urls[0])
        with pytest.raises(ConnectionLost, match="TOO_MANY_CONNECTIONS"):
            await second.ready()
        await second.aclose()
        values = server._node.metrics.values()
        assert (values["connections_refused_total"], values["connections"], values["half_open_connections"]) == (
            1,
            1,
            0,
        )
        await peer.aclose()


async def test_an_address_has_a_share_of_the_connections_over_all_listeners(tmp_path: Path) -> None:
    async with serving(tmp_path / "d", ANY_PORT, ANY_PORT, max_connections_per_address=2) as server:
        peers = [await dial(url) for url in server.urls[:2]]
        for peer in peers:
            await peer.ready()
        refused = await dial(server.urls[0])
        with pytest.raises(ConnectionLost, match="TOO_MANY_CONNECTIONS"):
            await refused.ready()
        await refused.aclose()
        local = await dial(server.urls[2])
        await local.ready()
        values = server._node.metrics.values()
        assert (values["connections_refused_total"], values["connections"]) == (1, 3)
        await peers[0].aclose()
        while server._node.connections > 2:
            await asyncio.sleep(0)
        another = await dial(server.urls[0])
        await another.ready()
        for peer in (peers[1], local, another):
            await peer.aclose()


async def test_all_listeners_of_a_node_share_its_budget(tmp_path: Path) -> None:
    small = {"max_message": 64 * KIB, "connection_budget": 256 * KIB, "process_budget": 256 * KIB}

    def unfinished(stream: int) -> bytes:
        return request(stream, "kv", "set", bytes(60 * KIB), flags=MORE)

    async with serving(tmp_path / "d", ANY_PORT, **small) as server:
        # Two messages whose ends never come: of what is unfinished half of the budget holds no more.
        first, second = [await RawPeer.open(url) for url in server.urls]
        try:
            await first.send(hello() + unfinished(1) + unfinished(3))
            await first.request(5, "session", "whoami", encode([]))
            await first.answer(5)
            # Each connection may have a little, whatever the others have.
            await second.send(hello() + unfinished(1) + unfinished(3))
            assert (await second.error(3)).code == 3007
            await first.close()
            while server._node.connections > 1:
                await asyncio.sleep(0.001)
            await second.send(unfinished(5))
            await second.request(7, "session", "whoami", encode([]))
            await second.answer(7)
            assert not [frame for frame in second.frames if frame.stream in (1, 5)]
        finally:
            await first.close()
            await second.close()


async def test_a_socket_that_a_killed_process_left_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "d" / "haptera.sock"))
    left.close()
    async with serving(tmp_path / "d") as server:
        assert server.local_socket is not None
        await whoami(server.urls[-1])


async def test_what_is_no_socket_stays_and_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "haptera.sock").write_text("mine")
    async with serving(tmp_path / "d", ANY_PORT) as server:
        assert server.local_socket is None
        await whoami(server.urls[0])
    assert "no_local_socket" in caplog.text
    assert (tmp_path / "d" / "haptera.sock").read_text() == "mine"


async def test_a_path_too_long_for_a_socket_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(tmp_path / ("d" * 120), ANY_PORT) as server:
        assert server.local_socket is None
        await whoami(server.urls[0])
    (record,) = [record for record in caplog.records if record.message == "no_local_socket"]
    assert "longer than the 107 bytes" in vars(record)["reason"]


@pytest.mark.parametrize("name", ["with space", "per%20cent", "question?mark", "hash#", "ünï"])
async def test_a_path_with_any_signs_has_its_socket(tmp_path: Path, name: str) -> None:
    async with serving(tmp_path / name) as server:
        assert server.local_socket == str(tmp_path / name / "haptera.sock")
        await whoami(server.urls[-1])


async def test_an_address_in_use_is_refused_and_nothing_is_left_listening(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        url = f"haptera://127.0.0.1:{taken.getsockname()[1]}"
        unix = tmp_path / "first"
        with pytest.raises(ConfigurationError, match=f"cannot listen on {url}: Address already in use"):
            async with serving(tmp_path / "d", f"haptera+unix://{unix}", url):
                pass
        assert not unix.exists()
        assert not (tmp_path / "d" / "haptera.sock").exists()


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/missing/s", "No such file or directory"),
        ("/file/s", "Not a directory"),
        (f"/{'x' * 107}", "File name too long"),
        ("/d/s/s", "No such file or directory"),
    ],
)
def test_a_socket_that_cannot_be_made_is_found_before_the_data_directory_is_made(
    tmp_path: Path, path: str, reason: str
) -> None:
    (tmp_path / "file").touch()
    config = NodeConfig(data_dir=str(tmp_path / "d"), listen=(f"haptera+unix://{tmp_path}{path}",))
    with pytest.raises(ConfigurationError, match=f"{reason}$"):
        check_listening(config)
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("haptera://127.0.0.1:0,127.0.0.1:0", "names several hosts"),
        ("haptera://127.0.0.1:0?nosuch=1", "'nosuch' is not known"),
        ("haptera://127.0.0.1:0?timeout=1", "timeout is an option of the dialling side"),
        ("haptera://127.0.0.1:0?signed=psk", "needs key_file"),
        ("haptera://app@127.0.0.1:0", "a listener has none"),
    ],
)
def test_a_url_that_cannot_be_listened_on_is_found_before_the_data_directory_is_made(url: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        check_listening(NodeConfig(listen=(url,)))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_socket_in_a_directory_of_others_is_found_before_the_data_directory_is_made(tmp_path: Path) -> None:
    config = NodeConfig(data_dir=str(tmp_path / "d"), listen=("haptera+unix:///proc/s",))
    with pytest.raises(ConfigurationError, match=r"Permission denied$"):
        check_listening(config)


def test_a_socket_may_be_in_the_data_directory_that_is_yet_to_be_made(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(short_path)
    check_listening(NodeConfig(data_dir="./d", listen=(f"haptera+unix://{short_path}/d/s",)))


async def test_an_address_that_others_can_reach_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(tmp_path / "d", "haptera://0.0.0.0:0", ANY_PORT):
        pass
    (record,) = [record for record in caplog.records if record.message == "insecure_listen"]
    assert vars(record)["url"].startswith("haptera://0.0.0.0:")


@pytest.mark.parametrize("no_auth", [False, True])
async def test_a_node_that_asks_nobody_for_a_proof_says_so_at_each_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, no_auth: bool
) -> None:
    for _ in range(2):
        async with serving(tmp_path / "d", no_auth=no_auth):
            pass
    assert [record.message for record in caplog.records].count("no_authentication") == 2 * no_auth
