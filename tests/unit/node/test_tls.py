"""A node that listens with TLS: what it says of itself, and its refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

import haptera
from haptera import dial
from haptera.errors import ConfigurationError, ConnectionLost
from haptera.node import NodeConfig, check_listening
from haptera.testing import node
from haptera.transport import tls_keeper
from haptera.transport.tls_context import load_context
from tests.support.certificates import Authority, dialling, listening

if TYPE_CHECKING:
    from pathlib import Path

    from haptera.transport.tls_context import TlsContext, TlsFiles

encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    authority = Authority(tmp_path)
    authority.issue("server", "localhost", "127.0.0.1")
    authority.issue("client", "worker.example")
    return authority


def url_of(ours: Authority, host: str = "127.0.0.1:0", **more: str) -> str:
    return f"hapteras://{host}" + listening(ours.folder, **more)


async def test_a_store_is_used_over_tls_and_its_status_says_so(ours: Authority, tmp_path: Path) -> None:
    async with node(data_dir=tmp_path / "d", listen=(url_of(ours, client_ca=str(ours.path)),)) as url:
        (served, *_) = url.server.urls
        assert served.startswith("hapteras://127.0.0.1:")
        async with haptera.connect(served + dialling(ours.path, ours.folder)) as db:
            await db.set("k", b"v" * 100_000)
            entry = await db.get("k")
            assert entry is not None
            assert entry.value == b"v" * 100_000
            status = await db.status()
            ends_at = url.server._node.certificate_ends_at
            assert ends_at is not None
            assert (status["tls"], status["certificate_ends_at"]) == (True, ends_at * 1000)
            metrics = url.server._node.metrics.values()
            assert metrics["certificate_end_time_seconds"] == ends_at
            assert (metrics["tls_failed_total"], metrics["tls_files_refused_total"]) == (0, 0)


async def test_whoami_says_whether_the_callers_connection_is_secure(ours: Authority, tmp_path: Path) -> None:
    async with node(data_dir=tmp_path / "d", listen=(url_of(ours), "haptera://127.0.0.1:0")) as url:
        tls, plain, *_ = url.server.urls
        for target, secure in ((tls + dialling(ours.path), True), (plain, False)):
            async with dial(target) as peer:
                assert decode(await peer.call("session", "whoami", encode([])))["secure"] is secure


async def test_failures_of_tls_and_of_its_files_are_counted(ours: Authority, tmp_path: Path) -> None:
    async with node(data_dir=tmp_path / "d", listen=(url_of(ours),)) as url:
        server = url.server
        with pytest.raises(ConnectionLost):
            async with dial(server.urls[0].replace("hapteras", "haptera")) as peer:
                await peer.ready()
        (ours.folder / "server.key").write_text("nothing")
        assert not await server.reload_files()
        metrics = server._node.metrics.values()
        assert (metrics["tls_failed_total"], metrics["tls_files_refused_total"]) == (1, 1)


async def test_a_hang_up_reads_the_files_of_each_listener_whatever_those_of_another_are(
    ours: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours.issue("other", "localhost", "127.0.0.1")
    urls = (url_of(ours), "hapteras://127.0.0.1:0" + listening(ours.folder, "other"))
    async with node(data_dir=tmp_path / "d", listen=urls) as url:
        first, second = url.server._node.tls

        def replaced(files: TlsFiles) -> TlsContext:
            if files == first.files:
                raise TypeError
            return load_context(files)

        monkeypatch.setattr(tls_keeper, "load_context", replaced)
        assert not await url.server.reload_files()
        assert (first.failed_reloads, second.reloads) == (1, 1)


async def test_a_node_without_tls_says_so(tmp_path: Path) -> None:
    async with node(data_dir=tmp_path / "d") as url, haptera.connect(url) as db:
        status = await db.status()
        assert status["tls"] is False
        assert "certificate_ends_at" not in status
        assert url.server._node.metrics.values()["certificate_end_time_seconds"] == 0
        assert await url.server.reload_files()


def test_a_key_for_signing_protects_no_listener_with_tls(ours: Authority, tmp_path: Path) -> None:
    key = tmp_path / "signing.key"
    key.write_bytes(bytes(32))
    config = NodeConfig(data_dir=str(tmp_path / "d"), signing_key_file=str(key), no_auth=True)
    with pytest.raises(ConfigurationError, match="signing_key_file protects nothing there"):
        check_listening(msgspec.structs.replace(config, listen=(url_of(ours),)))
    check_listening(msgspec.structs.replace(config, listen=(url_of(ours, client_ca=str(ours.path)),)))


def test_files_that_cannot_be_used_are_refused_before_there_is_a_directory(ours: Authority, tmp_path: Path) -> None:
    (ours.folder / "server.pem").unlink()
    with pytest.raises(ConfigurationError, match=r"server\.pem cannot be used"):
        check_listening(NodeConfig(data_dir=str(tmp_path / "d"), listen=(url_of(ours),)))
