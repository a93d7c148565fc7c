"""The addresses that a node refuses to listen on, because they would lay open more than its operator has said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from haptera.errors import ConfigurationError
from haptera.node.config import NodeConfig
from haptera.node.exposure import exposure, is_local
from haptera.node.listened import NO_DIALECTS
from haptera.node.listening_checks import check_listening
from tests.support.certificates import Authority, listening

if TYPE_CHECKING:
    from pathlib import Path

PLAIN = "haptera://0.0.0.0:0"
LOCAL = ("haptera://127.0.0.1:0", "haptera://[::1]:0", "haptera://localhost:0", "haptera+unix:///tmp/s")
IN_THE_CLEAR, OPEN = "neither encrypted nor signed", "no_auth lets everyone in"


@pytest.fixture
def key(tmp_path: Path) -> str:
    path = tmp_path / "signing.key"
    path.write_bytes(bytes(32))
    path.chmod(0o600)
    return str(path)


@pytest.fixture
def secure(tmp_path: Path) -> str:
    Authority(tmp_path).issue("server", "localhost", "127.0.0.1")
    return "hapteras://0.0.0.0:0" + listening(tmp_path)


def config(path: Path, *urls: str, **options: Any) -> NodeConfig:
    return NodeConfig(data_dir=str(path / "d"), listen=urls, **options)


def test_beyond_this_machine_frames_are_encrypted_or_signed(tmp_path: Path, key: str, secure: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{IN_THE_CLEAR}.*hapteras://.*signing_key_file.*signed=scram"):
        check_listening(config(tmp_path, PLAIN))
    check_listening(config(tmp_path, secure))
    check_listening(config(tmp_path, PLAIN, signing_key_file=key))
    check_listening(config(tmp_path, f"{PLAIN}?signed=psk&key_file={key}"))


def test_frames_that_an_exchange_signs_are_signed_and_need_an_exchange(tmp_path: Path) -> None:
    check_listening(config(tmp_path, f"{PLAIN}?signed=scram"))
    with pytest.raises(ConfigurationError, match="no_auth has none"):
        check_listening(config(tmp_path, "haptera://127.0.0.1:0?signed=scram", no_auth=True))


def test_one_address_that_is_protected_does_not_stand_for_the_others(tmp_path: Path, secure: str) -> None:
    with pytest.raises(ConfigurationError, match=IN_THE_CLEAR):
        check_listening(config(tmp_path, secure, "haptera://127.0.0.1:0", PLAIN))


def test_without_authentication_nothing_is_listened_on_beyond_this_machine(
    tmp_path: Path, key: str, secure: str
) -> None:
    for url in (PLAIN, secure):
        with pytest.raises(ConfigurationError, match=OPEN):
            check_listening(config(tmp_path, url, no_auth=True))
    with pytest.raises(ConfigurationError, match=OPEN):
        check_listening(config(tmp_path, PLAIN, no_auth=True, signing_key_file=key))


def test_the_refusal_names_the_ways_out(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as refused:
        check_listening(config(tmp_path, PLAIN))
    for way in ("hapteras://", "signing_key_file", "127.0.0.1", "insecure_listen"):
        assert way in str(refused.value)
    with pytest.raises(ConfigurationError, match="leave no_auth out"):
        check_listening(config(tmp_path, PLAIN, no_auth=True))


@pytest.mark.parametrize("no_auth", [False, True])
def test_who_says_so_may_listen_anywhere(tmp_path: Path, no_auth: bool) -> None:
    check_listening(config(tmp_path, PLAIN, insecure_listen=True, no_auth=no_auth))


@pytest.mark.parametrize("url", LOCAL)
def test_this_machine_alone_needs_neither(url: str) -> None:
    for no_auth in (False, True):
        assert exposure(url, NodeConfig(no_auth=no_auth), NO_DIALECTS) is None


def test_a_refusal_comes_before_there_is_a_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        check_listening(config(tmp_path, PLAIN))
    assert list(tmp_path.iterdir()) == []


def test_what_is_local() -> None:
    assert all(map(is_local, (*LOCAL, "haptera://127.9.9.9")))
    assert not any(map(is_local, (PLAIN, "haptera://10.0.0.1", "haptera://[::]:1", "haptera://host")))
