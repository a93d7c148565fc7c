"""The credential of a command: its places, and the prompt (docs/command-line.md)."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click
import pytest

from haptera.cli.client_command import Client
from haptera.client import Given
from haptera.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

URL = "haptera://127.0.0.1:1"


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The prompts of a terminal that is there; the environment has no credential."""
    monkeypatch.chdir(tmp_path)
    for name in ("HAPTERA_URL", "HAPTERA_USER", "HAPTERA_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    prompts: list[str] = []

    def prompt(text: str, **options: Any) -> str:
        assert options == {"hide_input": True, "err": True}
        prompts.append(text)
        return "typed"

    monkeypatch.setattr(click, "prompt", prompt)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    return prompts


def client(url: str | None = URL, user: str | None = None, password_file: str | None = None) -> Client:
    return Client(url, 1.0, False, False, user, password_file)


def test_a_command_without_a_user_has_no_credential(asked: list[str]) -> None:
    assert client().given == Given()
    assert asked == []


def test_a_terminal_is_asked_once(asked: list[str]) -> None:
    command = client(user="ada")
    assert command.given == command.given == Given("ada", "typed")
    assert asked == ["Password of ada"]
    assert client("haptera://eve@127.0.0.1:1").given == Given(None, "typed")
    assert asked[1:] == ["Password of eve"]


def test_nobody_is_asked_where_the_password_is_known(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert client(user="ada", password_file="f").given == Given("ada", None, "f")  # a file's name
    monkeypatch.setenv("HAPTERA_PASSWORD", "set")
    assert client(user="ada").given == Given("ada", "set")
    monkeypatch.setenv("HAPTERA_USER", "eve")
    assert client().given == client(None).given == Given("eve", "set")
    monkeypatch.setenv("HAPTERA_URL", "haptera://ada:of-the-url@127.0.0.1:1")
    assert client(None).given == Given()
    assert asked == []


def test_a_url_among_the_arguments_has_no_password() -> None:
    with pytest.raises(click.UsageError, match="--password-file FILE") as refused:
        client("haptera://ada:secret@127.0.0.1:1")
    assert "secret" not in refused.value.message


@pytest.mark.parametrize("named", [{}, {"user": "ada"}, {"password_file": "f"}])
def test_a_credential_and_the_node_of_this_directory_exclude_each_other(
    named: dict[str, str], tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "haptera-data").mkdir()
    (tmp_path / "haptera-data" / "haptera.sock").touch()
    assert client(None).given == Given()
    if not named:
        monkeypatch.setenv("HAPTERA_USER", "ada")
    with pytest.raises(ConfigurationError, match=r"not .*; to log in, name the node: --url haptera://HOST:PORT"):
        _ = client(None, **named).given
    assert asked == []  # before anyone is asked for a password
    assert client(**named).given.user == (None if "password_file" in named else "ada")


def test_a_password_without_a_user_is_not_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAPTERA_PASSWORD", "set")
    for url in (URL, None):
        with pytest.raises(ConfigurationError, match="no user is named for it: --user, HAPTERA_USER or the URL"):
            _ = client(url).given
    assert client("haptera://ada@127.0.0.1:1").given == Given(None, "set")


def test_without_a_terminal_the_ways_of_a_command_line_are_named(
    asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    with pytest.raises(ConfigurationError, match="--password-file FILE or HAPTERA_PASSWORD") as refused:
        _ = client(user="ada").given
    assert "URL" not in str(refused.value)
    assert asked == []
