"""How a command's process ends, whatever happens in it."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import click
import pytest

from haptera import defaults
from haptera.cli import main
from haptera.cli.failures import NO_NODE
from tests.integration.commands import run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def test_a_mistake_of_the_program_does_not_look_like_an_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(**_: object) -> None:
        raise ZeroDivisionError("a mistake")

    monkeypatch.setattr(main.group, "main", broken)
    with pytest.raises(SystemExit) as ended:
        main.main(["get", "k"])
    assert ended.value.code == 5
    assert "ZeroDivisionError: a mistake" in capsys.readouterr().err


def leaves(group: click.Group, *path: str) -> Iterator[tuple[tuple[str, ...], int]]:
    """The words of each command of a group, and of the groups in it, that takes so many arguments and no more."""
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        if isinstance(found, click.Group):
            yield from leaves(found, *path, name)
        elif found is not None:
            counts = [each.nargs for each in found.params if isinstance(each, click.Argument)]
            if -1 not in counts:
                yield (*path, name), sum(counts)


COMMANDS = list(leaves(main.group))


def test_commands_are_found_in_all_groups() -> None:
    assert {("get",), ("set",), ("user", "add"), ("storage", "verify")} & {words for words, _ in COMMANDS} == {
        ("set",),
        ("user", "add"),
        ("storage", "verify"),
    }


@pytest.mark.parametrize(("words", "count"), COMMANDS, ids=[" ".join(words) for words, _ in COMMANDS])
def test_no_command_repeats_an_argument_that_it_does_not_take(words: tuple[str, ...], count: int) -> None:
    for secret in ("s3cret-of-ada", "--s3cret-of-ada", "--json=s3cret-of-ada"):
        ended = run(*words, *["1"] * count, secret)
        assert ended.code == 2
        assert "s3cret-of-ada" not in ended.err.replace("'--s3cret-of-ada'", "")
        assert ended.out == b""


def test_a_password_as_an_argument_is_not_repeated_and_the_ways_to_give_one_are_named() -> None:
    for words in (("user", "add", "ada"), ("passwd", "ada")):
        for form in ((), ("--json",)):
            ended = run(*words, "s3cret-of-ada", *form)
            assert ended.code == 2
            assert "s3cret-of-ada" not in ended.err
            assert "1 argument too many" in ended.err
            assert "--new-password-file or HAPTERA_NEW_PASSWORD" in ended.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("sett", "a", "b"), "No such command 'sett'. Did you mean set?\n"),
        (("user", "ad"), "No such command 'ad'. Did you mean add?\n"),
        (("qqqqqq",), "No such command 'qqqqqq'.\n"),
    ],
)
def test_an_unknown_command_is_told_with_the_nearest_that_there_is(words: tuple[str, ...], told: str) -> None:
    ended = run(*words)
    assert ended.code == 2
    assert ended.err.endswith(f"haptera: {told}")


def test_the_choices_of_a_missing_argument_stand_in_one_line() -> None:
    ended = run("completion")
    assert ended.code == 2
    assert ended.err.splitlines()[-1] == ("haptera: Missing argument '{bash|zsh|fish}'. Choose from: bash, zsh, fish")


def test_a_command_that_finds_no_node_is_told_how_one_is_started(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(short_path)
    monkeypatch.delenv("HAPTERA_URL", raising=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nowhere = f"haptera://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setattr(defaults, "URL", nowhere)
        found, named = run("get", "k"), run("get", "k", "--url", "haptera://127.0.0.1:1")
    assert found.code == named.code == 3
    assert found.err.splitlines()[-1].strip() == NO_NODE
    assert NO_NODE not in named.err
