"""The small parts of the client: waits, request ids, URLs, arguments, entries."""

from __future__ import annotations

import asyncio
import math
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from haptera.client import Entry, connect
from haptera.client.calls.argument_checks import checked_timeout, plain_key, plain_value
from haptera.client.calls.entry import entry_of
from haptera.client.channels.request_ids import RequestIds
from haptera.client.channels.store_url import Given, default_url, has_password, locate, user_beside
from haptera.errors import ConfigurationError
from haptera.peer.backoff import Backoff
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


@pytest.mark.parametrize(
    "url",
    [
        "haptera://:pw-secret@h,i",
        "haptera://app@h",
        "haptera://app:pw-secret@h?auth=external",
        "haptera://a%00b:pw-secret@h",
        "haptera://app:pw-secret%00@h",
    ],
)
def test_a_credential_that_is_not_whole_is_refused_and_not_shown(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HAPTERA_PASSWORD", raising=False)
    with pytest.raises(ConfigurationError) as refused:
        repr(connect(url))
    assert "secret" not in str(refused.value)
    assert has_password(url) == ("secret" in url)


def test_a_password_is_never_shown() -> None:
    db = connect("haptera://app:pw-secret@h")
    assert repr(db) == "<haptera.Database haptera://app:***@h:7457>"
    assert "secret" not in repr(locate("haptera://h", given=Given("app", "pw-secret")))
    assert "secret" not in repr(Given("app", "pw-secret"))


def test_a_password_is_found_in_each_of_its_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "password"
    file.write_text("of the file\n")
    file.chmod(0o600)
    monkeypatch.setenv("HAPTERA_PASSWORD", "of the environment")
    for url, given, password in (
        ("haptera://app:of%20the%20URL@h", Given(), "of the URL"),
        ("haptera://app@h", Given(), "of the environment"),
        ("haptera://h", Given("app"), "of the environment"),
        ("haptera://h", Given("app", "given"), "given"),
        ("haptera://h", Given("app", None, file), "of the file"),
    ):
        address = locate(url, given=given).address
        assert (address.user, address.password) == ("app", password)
    assert locate("haptera://h").address.password is None  # no user is named, so none has a password
    for twice in (Given("app", "x", file), Given(None, "x", file)):
        with pytest.raises(ConfigurationError, match="more than one way"):
            locate("haptera://h", given=twice)
    with pytest.raises(ConfigurationError, match="in the URL and beside it"):
        locate("haptera://app:x@h", given=Given("other"))
    for content in (b"", b"two\nlines\n", b"\xff", b"x" * 1025):
        file.write_bytes(content)
        with pytest.raises(ConfigurationError, match="password file"):
            locate("haptera://h", given=Given("app", None, file))


def test_the_user_of_the_environment_is_of_its_store_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HAPTERA_USER", "app")
    monkeypatch.delenv("HAPTERA_URL", raising=False)
    assert user_beside(None, None) == "app"
    assert user_beside("haptera://h", None) is None
    assert user_beside("haptera://h", "other") == "other"
    monkeypatch.setenv("HAPTERA_URL", "haptera://h")
    assert user_beside(None, None) == "app"
    monkeypatch.setenv("HAPTERA_URL", "haptera://other:x@h")
    assert user_beside(None, None) is None
    monkeypatch.delenv("HAPTERA_URL")
    (tmp_path / "haptera-data").mkdir()
    (tmp_path / "haptera-data" / "haptera.sock").touch()
    assert user_beside(None, None) == "app"


def test_a_credential_is_never_dropped_for_the_node_of_the_present_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("HAPTERA_URL", "HAPTERA_USER", "HAPTERA_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "haptera-data").mkdir()
    (tmp_path / "haptera-data" / "haptera.sock").touch()
    _ = connect()
    credentials: list[dict[str, Any]] = [{"user": "app", "password": "x"}, {"password": "x"}, {"password_file": "f"}]
    for given in credentials:
        with pytest.raises(ConfigurationError, match=r"without a login.*--url haptera://"):
            _ = connect(**given)
    _ = connect("haptera://h", user="app", password="x")
    monkeypatch.setenv("HAPTERA_PASSWORD", "secret")
    for user in (None, "app"):
        if user is not None:
            monkeypatch.setenv("HAPTERA_USER", user)
        with pytest.raises(ConfigurationError, match="HAPTERA_USER") as refused:
            _ = connect()
        assert "secret" not in str(refused.value)
    _ = connect("haptera://h")
    monkeypatch.setenv("HAPTERA_URL", "haptera://h")
    _ = connect()


def test_a_password_in_the_environment_needs_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("HAPTERA_URL", "HAPTERA_USER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HAPTERA_PASSWORD", "secret")
    with pytest.raises(ConfigurationError, match="no user is named for it") as refused:
        _ = connect()
    assert "secret" not in str(refused.value)
    monkeypatch.setenv("HAPTERA_URL", "haptera://app@h")
    _ = connect()
    _ = connect("haptera://other")  # of another store than the environment's


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
