"""Trap: a trusted place that anyone can write. Without a URL a client uses the socket of the present directory."""

from __future__ import annotations

import asyncio
import os
import shlex
import socket
import sys
from typing import TYPE_CHECKING

import pytest

import haptera
from haptera import defaults
from haptera.cli.serve import _client_options, _program
from haptera.client.channels import local_node
from haptera.errors import ConfigurationError
from haptera.testing import node
from tests.integration.commands import run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STRANGER = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")


@pytest.fixture
def here(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory to be in, with a data directory in it, and nothing that names a store."""
    monkeypatch.chdir(short_path)
    monkeypatch.delenv("HAPTERA_URL", raising=False)
    directory = short_path / "haptera-data"
    directory.mkdir(mode=0o700)
    return directory


async def test_the_own_node_of_the_directory_is_used(here: Path) -> None:
    async with node(listen=f"haptera+unix://{here}/haptera.sock", storage="memory"), haptera.connect() as db:
        assert await db.increment("n") == 1


async def test_a_client_that_starts_before_the_node_of_its_directory_uses_its_socket(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap: the place of a store that is chosen once. The port asks for a login, and the socket does not."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nowhere = f"haptera://127.0.0.1:{taken.getsockname()[1]}"
    monkeypatch.setattr(defaults, "URL", nowhere)
    async with haptera.connect() as db:
        waiting = asyncio.create_task(db.increment("n", timeout=30.0))
        await asyncio.sleep(0)
        monkeypatch.chdir("/")
        async with node(data_dir=here, listen=nowhere, no_auth=False, admin_password="a long sentence"):
            assert await waiting == 1
            assert (await db.whoami()).user == "local"


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems take UTF-8 alone")
async def test_a_directory_whose_name_is_no_utf8_has_a_node(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap: a lone surrogate, as which Python keeps such a name."""
    place = short_path / "\udcff"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.delenv("HAPTERA_URL", raising=False)
    async with node(data_dir=place / "haptera-data"), haptera.connect() as db:
        assert await db.increment("n") == 1
        assert db.reached == f"haptera+unix://{short_path}/%FF/haptera-data/haptera.sock"


async def test_a_present_directory_that_was_removed_has_no_node(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = short_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    monkeypatch.delenv("HAPTERA_URL", raising=False)
    monkeypatch.setenv("PATH", "")
    gone.rmdir()
    assert local_node.local_url() is None
    async with node(data_dir=short_path / "data") as url:
        assert shlex.split(_program())[-1].endswith("haptera")  # quoted for the shell
        assert _client_options(url.server, url.node.config) == f" --url {url}"


async def test_another_users_socket_is_refused_before_anything_is_sent(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node(listen=f"haptera+unix://{here}/haptera.sock", storage="memory") as url:
        # From here on this process is another user's, and the socket is neither that one's nor root's.
        monkeypatch.setattr(local_node, "_trusted", lambda uid: False)
        with pytest.raises(ConfigurationError, match=r"belongs to the user .*; if that is meant, name it: --url "):
            _ = haptera.connect()
        assert url.node.connections == 0
        async with haptera.connect(url) as named:
            assert await named.increment("n") == 1
        monkeypatch.setenv("HAPTERA_URL", url)
        async with haptera.connect() as named:
            assert await named.increment("n") == 2


def _give_to_nobody(path: Path) -> None:
    os.chown(path, STRANGER, STRANGER, follow_symlinks=False)


def _link_of_nobody(path: Path) -> None:
    kept = path.with_name(f"{path.name}.real")
    path.rename(kept)
    path.symlink_to(kept.name)
    _give_to_nobody(path)


def _lead_to_nobodys(path: Path) -> None:
    kept = path.with_name(f"{path.name}.real")
    path.rename(kept)
    path.symlink_to(kept.name)
    _give_to_nobody(kept)


@needs_root
@pytest.mark.parametrize("place", ["haptera-data", "haptera-data/haptera.sock"])
@pytest.mark.parametrize("change", [_give_to_nobody, _link_of_nobody, _lead_to_nobodys])
def test_a_socket_directory_or_link_of_another_user_is_refused(
    here: Path, place: str, change: Callable[[Path], None]
) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(here / "haptera.sock"))
        _ = haptera.connect()
        change(here.parent / place)
        with pytest.raises(ConfigurationError, match="the node in this directory is not used, because "):
            _ = haptera.connect()
        ended = run("set", "password", "secret")
        assert ended.code == 2
        assert "--url haptera+unix://" in ended.err


@pytest.mark.parametrize(("mode", "refused"), [(0o777, True), (0o1777, False), (0o775, False), (0o700, False)])
def test_a_directory_in_which_everyone_may_write_is_refused(here: Path, mode: int, refused: bool) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(here / "haptera.sock"))
        here.chmod(mode)
        if refused:
            with pytest.raises(ConfigurationError, match="every user may write in "):
                _ = haptera.connect()
        else:
            _ = haptera.connect()


@needs_root
@pytest.mark.parametrize("command", [("set", "password", "secret"), ("metrics",), ("bench", "write")])
def test_another_users_process_that_listens_gets_nothing(command: tuple[str, ...], here: Path) -> None:
    """The files are root's, as they may be at the moment of the look; who listens is told by the kernel alone."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(here / "haptera.sock"))
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setuid(STRANGER)
            listening.listen()  # from here on the kernel tells its credentials
            os.write(writer, b"listening")
            connection, _ = listening.accept()
            got = b""
            while data := connection.recv(1000):
                got += data
            os.write(writer, b"got %r" % got)
        finally:
            os._exit(0)
    os.close(writer)
    try:
        assert os.read(reader, 100) == b"listening"
        ended = run(*command)
        assert (ended.code, ended.out) == (2, b"")
        assert "a process of the user " in ended.err
        assert os.read(reader, 1000) == b"got b''"
    finally:
        os.close(reader)
        os.waitpid(child, 0)
        listening.close()


async def test_status_says_which_node_was_reached(here: Path) -> None:
    async with node(listen=f"haptera+unix://{here}/haptera.sock", storage="memory"):
        ended = await asyncio.to_thread(run, "status")
    assert f"url: haptera+unix://{here}/haptera.sock" in ended.text
