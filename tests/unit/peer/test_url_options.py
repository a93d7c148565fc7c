"""What a URL's options and the keywords of ``listen`` and ``dial`` ask for."""

from __future__ import annotations

import os
import secrets
import stat
from typing import TYPE_CHECKING, Any

import pytest

from haptera import ConnectionLost, Database, Peer, dial, listen
from haptera.client.channels.store_url import locate
from haptera.errors import ConfigurationError
from haptera.peer import Call, read_key_file
from haptera.peer.url_options import Options, read_options
from haptera.testing import virtual_clock
from haptera.transport import parse
from haptera.wire import compression
from tests.unit.peer.hosts import ANY_PORT, KIB, Echo, eventually, other_side, served

if TYPE_CHECKING:
    from pathlib import Path

KEY = secrets.token_bytes(32)
TEXT = b"what can be compressed, can be compressed " * 100


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "a key"
    path.write_bytes(KEY)
    path.chmod(0o600)
    return path


def options(query: str) -> Options:
    return read_options(parse(f"haptera://h{query}"))


# -- options ------------------------------------------------------------------------------------------------------


def test_what_is_not_said_is_none() -> None:
    assert options("") == Options()


def test_all_of_them(key_file: Path) -> None:
    quoted = str(key_file).replace(" ", "%20")
    assert options(f"?timeout=2.5&compression=none&signed=psk&key_file={quoted}") == Options(
        2.5, compression=False, signing_key=KEY
    )
    assert options("?compression=zstd&signed=no") == Options(compression=True)


@pytest.mark.parametrize(
    "query",
    [
        *("?timeout=0", "?timeout=-1", "?timeout=nan", "?timeout=inf", "?timeout=x", "?timeout="),
        *("?ping_interval=-1", "?ping_interval=nan", "?ping_interval=inf", "?ping_interval=", "?ping_interval=1e9"),
        *("?compression=gzip", "?compression=", "?compression=ZSTD"),
        *(
            "?signed=SCRAM",
            "?auth=",
            "?auth=kerberos",
            "?signed=scram&auth=plain",
            "?signed=",
            "?signed=psk",
            "?signed=psk&key_file=",
            "?key_file=/x",
            "?signed=no&key_file=/x",
        ),
        *("?Timeout=1", "?tls=yes", "?key=/x"),
    ],
)
def test_nothing_that_a_url_asks_for_is_left_out(query: str) -> None:
    with pytest.raises(ConfigurationError):
        options(query)


def test_a_ping_interval_is_in_seconds_and_may_be_0() -> None:
    assert options("?ping_interval=2.5") == Options(ping_interval_ms=2500)
    assert options("?ping_interval=0") == Options(ping_interval_ms=0)


def test_a_key_is_never_shown() -> None:
    shown = repr(Options(1.0, 500, True, KEY))
    assert shown.startswith("Options(timeout=1.0, ping_interval_ms=500, compression=True, signing_key=***, tls=None")
    assert "***" in repr(Options(signing_key=KEY).__rich_repr__())


# -- key files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"k" * 32, b"k" * 31 + b"\n", os.urandom(4096)], ids=["text", "line end", "random"]
)
def test_a_key_is_all_bytes_of_its_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    assert read_key_file(path) == content


@pytest.mark.parametrize("size", [0, 1, 31, 4097, 100_000])
def test_a_key_of_another_size_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"s" * size)
    with pytest.raises(ConfigurationError, match="32 to 4096 bytes") as caught:
        read_key_file(path)
    assert "ss" not in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o777])
def test_a_key_that_others_may_read_is_warned_of(key_file: Path, mode: int, caplog: pytest.LogCaptureFixture) -> None:
    key_file.chmod(mode)
    assert read_key_file(key_file) == KEY
    (record,) = caplog.records
    assert (record.getMessage(), vars(record)["mode"]) == ("key_file_open_to_others", oct(mode))
    assert KEY.hex() not in str(vars(record))


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    """A pipe that nobody writes to in particular."""
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (("pipe", "no regular file"), ("none", "No such file"), (".", r"regular|directory")):
        with pytest.raises(ConfigurationError, match=reason):
            read_key_file(tmp_path / name)
    with pytest.raises(ConfigurationError, match="null"):
        read_key_file("a\0b")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


# -- signed links -------------------------------------------------------------------------------------------------


async def test_a_link_is_signed_when_both_urls_name_the_key(short_path: Path, key_file: Path) -> None:
    query = f"?signed=psk&key_file={str(key_file).replace(' ', '%20')}"
    async with served(f"haptera+unix://{short_path}/s{query}", Echo()) as server:
        assert server.url == f"haptera+unix://{short_path}/s"
        peer = await dial(server.url + query)
        assert await peer.call("echo", "one", b"x") == b"x"
        assert "hmac_sha256" in peer.capabilities
        assert [item async for item in peer.stream("echo", "many", b"3")] == [b"0", b"1", b"2"]
        await peer.aclose()


@virtual_clock
async def test_a_side_with_a_key_never_falls_back(caplog: pytest.LogCaptureFixture) -> None:
    echo = Echo()
    for listens, dials in (({"signing_key": KEY}, {}), ({}, {"signing_key": KEY}), *_two_keys()):
        async with served(ANY_PORT, echo, **listens) as server:
            peer = await dial(server.url, **dials)
            with pytest.raises(ConnectionLost):
                await peer.call("echo", "one", b"x")
            await peer.aclose()
    for record in caplog.records:
        assert KEY.hex() not in str(vars(record))


def _two_keys() -> tuple[tuple[dict[str, Any], dict[str, Any]]]:
    return (({"signing_key": KEY}, {"signing_key": bytes(32)}),)


async def test_a_key_is_given_once_and_is_long_enough(short_path: Path, key_file: Path) -> None:
    url = f"haptera+unix://{short_path}/s?signed=psk&key_file={str(key_file).replace(' ', '%20')}"
    for use in (listen, dial):
        with pytest.raises(ConfigurationError, match="in the URL and beside it"):
            await use(url, signing_key=KEY)
        with pytest.raises(ConfigurationError, match="32 bytes"):
            await use(f"haptera+unix://{short_path}/s", signing_key=b"short")


async def test_a_listener_has_no_timeout_of_calls(short_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="of the dialling side"):
        await listen(f"haptera+unix://{short_path}/s?timeout=2")


# -- compression --------------------------------------------------------------------------------------------------

needs_zstd = pytest.mark.skipif(not compression.available(), reason="the extra haptera[zstd] is not installed")


async def sent_for(peer: Peer) -> int:
    """Bytes that one call with a text took."""
    before = peer.bytes_sent
    assert await peer.call("echo", "one", TEXT) == TEXT
    return peer.bytes_sent - before


@needs_zstd
@pytest.mark.parametrize(
    ("query", "keywords", "listens", "compressed"),
    [
        ("", {}, {}, False),  # nothing is gained on the same machine
        ("?compression=zstd", {}, {}, True),
        ("", {"compression": True}, {}, True),
        ("?compression=none", {}, {}, False),
        ("?compression=zstd", {}, {"compression": False}, False),
        ("", {"compression": False}, {"compression": True}, False),
    ],
)
@pytest.mark.parametrize("scheme", ["unix", "tcp"])
@virtual_clock
async def test_compression_is_used_where_both_sides_have_it(
    short_path: Path, scheme: str, query: str, keywords: Any, listens: Any, compressed: bool
) -> None:
    url = f"haptera+unix://{short_path}/s" if scheme == "unix" else ANY_PORT
    async with served(url, Echo(), **listens) as server:
        peer = await dial(server.url + query, **keywords)
        await peer.ready()
        assert ("zstd" in peer.capabilities) is compressed
        assert ((await sent_for(peer)) < KIB) is compressed
        await peer.aclose()


@needs_zstd
@virtual_clock
async def test_compression_is_asked_for_by_itself_where_the_link_leaves_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("haptera.peer.listen_and_dial._is_local", lambda place: False)
    async with served(ANY_PORT, Echo()) as server:
        peer = await dial(server.url)
        await peer.ready()
        assert "zstd" in peer.capabilities
        await peer.aclose()


@pytest.mark.parametrize(
    ("place", "local"),
    [
        *(("/run/s", True), (("127.0.0.1", 1), True), (("::1", 1), True), (("localhost", 1), True)),
        *((("127.8.8.8", 1), True), (("10.0.0.1", 1), False), (("example.org", 1), False), (("::", 1), False)),
    ],
)
def test_what_is_local(place: Any, local: bool) -> None:
    from haptera.peer.listen_and_dial import _is_local

    assert _is_local(place) is local


@virtual_clock
async def test_without_the_extra_nobody_asks_and_who_insists_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("haptera.peer.listen_and_dial.available", lambda: False)
    monkeypatch.setattr("haptera.peer.listen_and_dial._is_local", lambda place: False)
    async with served(ANY_PORT, Echo()) as server:
        peer = await dial(server.url)
        await peer.ready()
        assert "zstd" not in peer.capabilities
        await peer.aclose()
        with pytest.raises(ConfigurationError, match=r"pip install 'haptera\[zstd\]'"):
            await dial(f"{server.url}?compression=zstd")
        with pytest.raises(ConfigurationError, match="in the URL and beside it"):
            await dial(f"{server.url}?compression=none", compression=True)
    with pytest.raises(ConfigurationError, match=r"haptera\[zstd\]"):
        await listen(ANY_PORT, compression=True)


# -- the timeout of calls -----------------------------------------------------------------------------------------


@virtual_clock
async def test_the_urls_timeout_is_that_of_calls_that_name_none() -> None:
    async with served(ANY_PORT, Echo()) as server:
        peer = await dial(f"{server.url}?timeout=7")
        await peer.ready()
        seen: list[float | None] = []
        begin = peer._caller.begin

        def spy(route: Any, payload: bytes, timeout: float | None) -> Call:
            seen.append(timeout)
            return begin(route, payload, timeout)

        peer._caller.begin = spy  # type: ignore[assignment,method-assign]
        await peer.call("echo", "one", b"x")
        await peer.call("echo", "one", b"x", timeout=2.0)
        await peer.call("echo", "one", b"x", timeout=None)
        assert seen == [7.0, 2.0, None]
        await peer.aclose()


# -- addresses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a#b", "a?b", "a%20b", "a b", "ä", "a@b:c"])
async def test_the_url_of_a_server_is_one_that_can_be_dialled(short_path: Path, name: str) -> None:
    from urllib.parse import quote

    async with served(f"haptera+unix://{short_path}/{quote(name)}", Echo()) as server:
        assert parse(server.url).path == f"{short_path}/{name}"
        peer = await dial(server.url)
        assert await peer.call("echo", "one", b"x") == b"x"
        await peer.aclose()
        assert (short_path / name).exists()


def test_a_clients_location_keeps_what_is_for_the_connection(key_file: Path) -> None:
    query = f"signed=psk&key_file={str(key_file).replace(' ', '%20')}"
    location = locate(f"haptera://a:1,[::1]:2?timeout=2&compression=none&{query}")
    assert location.timeout == 2.0
    kept = {"compression": "none", "signed": "psk", "key_file": str(key_file)}
    assert location.address.options == kept
    assert location.address.hosts == (("a", 1), ("::1", 2))
    assert KEY.hex() not in location.shown
    with pytest.raises(ConfigurationError, match="key_file"):
        locate("haptera://a?signed=psk")


async def test_a_database_speaks_signed_where_its_url_says_so(short_path: Path, key_file: Path) -> None:
    import haptera

    query = f"?signed=psk&key_file={str(key_file).replace(' ', '%20')}"
    async with served(f"haptera+unix://{short_path}/s{query}", Echo()) as server:
        database: Database = haptera.connect(server.url + query)
        with pytest.raises(haptera.errors.UnknownService):  # so it got through
            await database.get("k")
        await eventually(lambda: server.peers)
        assert "hmac_sha256" in other_side(server).capabilities
        await database.aclose()
