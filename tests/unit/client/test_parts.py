"""The small parts of the client: waits, request ids, URLs, arguments, entries."""

from __future__ import annotations

import asyncio
import math
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from haptera.client import Entry, connect
from haptera.client.backoff import Backoff
from haptera.client.calls.argument_checks import checked_timeout, plain_key, plain_value
from haptera.client.calls.entry import entry_of
from haptera.client.channels.request_ids import RequestIds
from haptera.client.channels.store_url import default_url, has_password, locate
from haptera.errors import ConfigurationError
from haptera.testing import virtual_clock

if TYPE_CHECKING:
    from pathlib import Path


@virtual_clock
async def test_waits_double_up_to_the_longest_and_are_spread_over_the_whole_range() -> None:
    chances = iter([0.0, 0.5, 0.75, 0.5, 0.5, 0.5])
    backoff = Backoff(first=1.0, longest=4.0, uniform=lambda: next(chances))
    loop = asyncio.get_running_loop()
    waited: list[float] = []
    for attempt, within in ((1, math.inf), (2, math.inf), (3, math.inf), (4, math.inf), (10_000, math.inf), (4, 1.5)):
        start = loop.time()
        await backoff.wait(attempt, within)
        waited.append(loop.time() - start)
    assert waited == [0.0, 1.0, 3.0, 2.0, 2.0, 1.5]


def test_request_ids_are_uuids_of_version_8_and_never_repeat() -> None:
    first, second = RequestIds(), RequestIds()
    ids = [source.new() for source in (first, second) for _ in range(1000)]
    assert len(set(ids)) == 2000
    for each in (ids[0], ids[-1]):
        parsed = uuid.UUID(bytes=each)
        assert parsed.version == 8
        assert parsed.variant == uuid.RFC_4122
    assert ids[0][:8] != ids[-1][:8]


def test_default_url_is_the_environments_then_the_local_socket_then_the_default_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HAPTERA_URL", raising=False)
    assert default_url() == "haptera://127.0.0.1:7457"
    (tmp_path / "haptera-data").mkdir()
    (tmp_path / "haptera-data" / "haptera.sock").touch()
    assert str(locate(default_url()).address) == f"haptera+unix://{tmp_path}/haptera-data/haptera.sock"
    monkeypatch.setenv("HAPTERA_URL", "haptera://elsewhere")
    assert default_url() == "haptera://elsewhere"


def test_default_url_of_a_directory_with_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "a b%20?#@:c" / "haptera-data"
    directory.mkdir(parents=True)
    (directory / "haptera.sock").touch()
    monkeypatch.chdir(directory.parent)
    monkeypatch.delenv("HAPTERA_URL", raising=False)
    assert locate(default_url()).address.path == str(directory / "haptera.sock")


def test_several_hosts_are_one_address() -> None:
    location = locate("haptera://a:1,b,[::1]:3?timeout=2.5")
    assert str(location.address) == "haptera://a:1,b:7457,[::1]:3"
    assert location.timeout == 2.5


@pytest.mark.parametrize(
    "url", ["haptera://h?timeout=0", "haptera://h?timeout=nan", "haptera://h?compression=gzip", "http://h", "h:1", ""]
)
def test_urls_that_are_not_understood_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        locate(url)


@pytest.mark.parametrize("url", ["haptera://app:pw-secret@h", "haptera://:pw-secret@h,i", "haptera://app@h"])
def test_a_credential_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigurationError, match="no authentication") as refused:
        repr(connect(url))
    assert "secret" not in str(refused.value)
    assert has_password(url) == ("secret" in url)


async def test_repr_names_the_place() -> None:
    assert repr(connect("haptera://h:1")) == "<haptera.Database haptera://h:1>"


def test_arguments() -> None:
    class Name(str):
        __slots__ = ()

    assert type(plain_key(Name("k"))) is str
    assert plain_value("ü") == b"\xc3\xbc"
    assert plain_value(memoryview(b"abcd")[::2]) == b"ac"
    assert checked_timeout(10**9) is None
    assert checked_timeout(None) is None
    bad: list[Any] = [True, "5"]
    for timeout in bad:
        with pytest.raises(TypeError):
            checked_timeout(timeout)
    for seconds in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="above 0"):
            checked_timeout(seconds)


def test_entry() -> None:
    entry = entry_of("k", b"v", 3, 1500)
    assert entry == Entry("k", b"v", 3, 1.5)
    assert entry.text == "v"
    with pytest.raises(AttributeError):
        entry.value = b""  # type: ignore[misc]
    with pytest.raises(ValueError, match="utf-8"):
        _ = Entry("k", b"\xff", 1).text
