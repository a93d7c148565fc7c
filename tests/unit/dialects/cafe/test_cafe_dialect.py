"""The URL of a listener of CAFE: its options, its key file, and what is said about mistakes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from rich.pretty import pretty_repr

from haptera.dialects import DIALECTS
from haptera.dialects.cafe.cafe_dialect import Cafe
from haptera.errors import ConfigurationError
from haptera.node import NodeConfig, check_listening
from haptera.transport import parse
from tools.cafe_vectors import SHARED_KEY

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(SHARED_KEY.hex() + "\n")
    path.chmod(0o600)
    return path


def test_a_listener_has_a_key_and_may_want_bind(key_file: Path) -> None:
    for text, wants in (("", False), ("&require_bind=false", False), ("&require_bind=true", True)):
        settings = Cafe().settings(parse(f"cafe://h?key_file={key_file}{text}", ("cafe",)))
        assert settings.require_bind == wants
        for shown in (repr(settings), pretty_repr(settings)):
            assert SHARED_KEY.hex() not in shown
            assert repr(SHARED_KEY)[2:20] not in shown
        assert Cafe().is_signed(settings)


def test_its_port_is_7777_unless_given() -> None:
    assert parse("cafe://h", ("cafe",)).places == (("h", 7777),)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("", "key_file=PATH"),
        ("?key_file=", "key_file=PATH"),
        ("?key_file={file}&require_bind=yes", "true or false"),
        ("?key_file={file}x", "No such file"),
        ("?key_file={file}&signed=psk", "'signed' is not known"),
        ("?key_file={file}&cert=x", "cafes://"),
    ],
)
def test_options_that_cannot_be_used_are_refused_before_the_start(key_file: Path, options: str, reason: str) -> None:
    url = "cafe://127.0.0.1:1" + options.format(file=key_file)
    config = NodeConfig(data_dir=str(key_file.parent / "data"), listen=(url,), no_auth=True)
    with pytest.raises(ConfigurationError, match=reason):
        check_listening(config, DIALECTS)


def test_a_file_that_holds_no_key_is_refused_without_its_content(key_file: Path) -> None:
    key_file.write_text(SHARED_KEY.hex()[:-2])
    with pytest.raises(ConfigurationError, match="62 hex digits; the shared key of CAFE is 32 bytes") as caught:
        Cafe().settings(parse(f"cafe://h?key_file={key_file}", ("cafe",)))
    assert SHARED_KEY.hex()[:20] not in str(caught.value)


def test_a_file_that_others_may_read_is_warned_of(key_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    key_file.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        Cafe().settings(parse(f"cafe://h?key_file={key_file}", ("cafe",)))
    assert "key_file_open_to_others" in caplog.text
