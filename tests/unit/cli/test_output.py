"""What is written, and what a command needs before it runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from haptera import cli
from haptera.cli import exit_codes, output
from haptera.cli.failures import Target, described, exit_code, tell
from haptera.cli.groups import behind_the_command
from haptera.cli.main import COMMANDS, MODULES, group
from haptera.cli.output import counted, entry_fields, shown
from haptera.client import Entry
from haptera.errors import (
    ConfigurationError,
    ConnectionLost,
    HapteraError,
    RemoteProtocolError,
    ServerError,
    VersionMismatch,
    failure,
)
from haptera.wire import ForeignBytes

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_numbers_have_their_nouns() -> None:
    assert [counted(0, "row"), counted(1, "row"), counted(2, "row")] == ["0 rows", "1 row", "2 rows"]
    assert counted(2, "entry", "entries") == "2 entries"


def test_terminal_gets_no_control_characters() -> None:
    assert shown(b"\x1b]0;x\x07\n\xff ok", lines=True) == "\\x1b]0;x\\x07\n\\xff ok"
    assert shown("a\nb\u202e") == "a\\nb\\u202e"


def test_json_of_entries() -> None:
    assert entry_fields(Entry("k", b"v", 1)) == {"key": "k", "value": "v", "version": 1, "expires_at": None}
    assert entry_fields(Entry("k", b"\xff", 1)) == {
        "key": "k",
        "value_base64": "/w==",
        "version": 1,
        "expires_at": None,
    }


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (failure(4001).exception(), 1),
        (failure(4002).exception(), 1),
        (failure(4006).exception(), 2),
        (ConfigurationError("bad"), 2),
        (ConnectionLost("lost"), 3),
        (failure(2001).exception(), 4),
        (failure(2004).exception(), 4),
        (failure(3005).exception(), 5),
        (failure(5002).exception(), 5),
        (RemoteProtocolError(1002), 5),
        (ServerError(9999, "NEW", "a newer one"), 5),
        (ServerError(2999, "NEW", "a newer one"), 4),
    ],
)
def test_exit_codes(error: HapteraError, code: int) -> None:
    assert exit_code(error) == code


def test_error_is_one_clear_line() -> None:
    error = failure(4002, {"key": "k\n", "expected": 2, "actual": 3}).exception()
    assert isinstance(error, VersionMismatch)
    assert described(error) == f"VERSION_MISMATCH (4002): {error.message}: 'k\\n' (expected 2, actual 3)"


def test_help_names_every_command() -> None:
    folder = Path(cli.__file__).parent
    files = {path.stem for path in folder.glob("*.py") if "@click.command(" in path.read_text(encoding="utf-8")}
    decorators = ("@click.group(", "@click.command(")
    packages = {path.parent.name: path.read_text(encoding="utf-8") for path in folder.glob("*/__init__.py")}
    files |= {name for name, text in packages.items() if any(each in text for each in decorators)}
    assert {MODULES.get(name, name) for name in COMMANDS} == files
    for name in COMMANDS:
        command = group.get_command(click.Context(group), name)
        assert command is not None
        assert command.name == name


def leaves(found: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """Every command that is no group, with its full name."""
    if not isinstance(found, click.Group):
        yield name, found
        return
    context = click.Context(found)
    for each in found.list_commands(context):
        command = found.get_command(context, each)
        assert command is not None
        yield from leaves(command, f"{name} {each}")


def test_each_option_and_argument_of_a_command_means_one_thing() -> None:
    for name, command in leaves(group, "haptera"):
        arguments = Counter(parameter.name for parameter in command.params)
        options = Counter(option for parameter in command.params for option in parameter.opts)
        assert max([*arguments.values(), *options.values()], default=0) <= 1, name


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"meaning": "it leaks", "help": "mend it"}, "haptera: warning: event: it leaks\n  mend it\n"),
        ({"meaning": "it leaks", "file": "a", "count": 2}, "haptera: warning: event: it leaks (file a, count 2)\n"),
        ({"file": "a"}, "haptera: warning: event: file a\n"),
    ],
)
def test_a_warning_is_a_sentence_with_its_fields_and_the_next_step(
    fields: dict[str, object], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output.warning("event", fields)
    assert capsys.readouterr().err == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1023 bytes"),
        (1024, "1.0 KiB"),
        (726_786, "709.8 KiB"),
        (3 << 29, "1.5 GiB"),
    ],
)
def test_a_size_has_the_unit_in_which_it_is_short(count: int, text: str) -> None:
    assert output.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min 0 s"), (3725, "1 h 2 min"), (86_400 * 3 + 4 * 3600 + 59, "3 d 4 h")],
)
def test_a_duration_has_its_two_largest_units(seconds: float, text: str) -> None:
    assert output.duration(seconds) == text


#: The commands that work without a node.
OFFLINE = (
    ("storage", "verify"),
    ("storage", "inspect"),
    ("storage", "salvage"),
    ("storage", "migrate"),
    ("storage", "rotate-key"),
    ("pitr", "inspect"),
    ("pitr", "restore"),
    ("backup", "verify"),
    ("restore",),
)


def codes_of(*words: str) -> set[int]:
    """The exit codes in the help of a command."""
    found: click.Command = group
    for word in words:
        assert isinstance(found, click.Group)
        inner = found.get_command(click.Context(found), word)
        assert inner is not None
        found = inner
    listed = (found.help or "").split("Exit codes: ")[1]
    return {int(code) for code in re.findall(r"(?:^|; )(\d+) ", listed)}


def test_the_help_of_a_command_without_a_node_lists_the_codes_that_it_can_end_with() -> None:
    common = {0, 2, 11, 12, 13, 14, 15, 16, 130}
    own: dict[tuple[str, ...], set[int]] = {
        ("storage", "verify"): {17},
        ("storage", "salvage"): {1, 10},
        ("storage", "migrate"): {1, 10, 17},
        ("storage", "rotate-key"): {3, 4, 5, 6, 10},
        ("pitr", "restore"): {10},
        ("restore",): {10},
    }
    for words in OFFLINE:
        assert codes_of(*words) == common | own.get(words, set()), words


def test_the_help_and_the_documentation_have_every_exit_code() -> None:
    page = (Path(__file__).parents[3] / "docs" / "command-line.md").read_text(encoding="utf-8")
    section = page.split("## Exit codes")[1].split("\n## ")[0]
    of_clients, of_serve, of_offline = re.split(
        "`haptera serve` has its own|So have the commands without a node", section
    )
    documented = [
        {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", text, re.MULTILINE) for code in row.split(", ")}
        for text in (of_clients, of_serve, of_offline)
    ]
    assert documented == [
        {*exit_codes.OF_CLIENTS, *exit_codes.OF_LOCK, exit_codes.INTERRUPTED},
        {*exit_codes.OF_SERVE},
        set().union(*(codes_of(*words) for words in OFFLINE)),
    ]
    named = {value for name, value in vars(exit_codes).items() if name.isupper() and isinstance(value, int)}
    assert named == set.union(*documented)
    assert exit_codes.listed(exit_codes.OF_CLIENTS) in (group.help or "")
    lock = group.get_command(click.Context(group), "lock")
    assert lock is not None
    assert lock.epilog == exit_codes.listed(exit_codes.OF_LOCK)


@pytest.mark.parametrize("command", ["get", "set", "import"])
def test_command_imports_nothing_that_it_does_not_use(command: str) -> None:
    heavy = "rich cryptography sortedcontainers uvloop haptera.node haptera.state haptera.storage haptera.cli.serve"
    program = (
        "import sys; from haptera.cli.main import main\n"
        f"try: main(['{command}', *['x'] * {2 if command == 'set' else 1}, '--url', 'haptera://127.0.0.1:1'])\n"
        f"except SystemExit: print([name for name in {heavy.split()!r} if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.stdout == "[]\n", ended.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConnectionLost("lost"), 6),
        (ConnectionLost("lost", outcome="not_applied"), 3),
        (failure(3005, outcome="unknown").exception(), 6),
        (failure(3005, outcome="not_applied").exception(), 5),
        (failure(5002, outcome="unknown").exception(), 6),
        (failure(4002).exception(), 1),
        (failure(2004).exception(), 4),
        (RemoteProtocolError(1002), 6),
        (ConfigurationError("bad"), 2),
    ],
)
def test_exit_codes_of_changes_tell_what_is_unknown(error: HapteraError, code: int) -> None:
    """Trap: an outcome that is not told."""
    assert exit_code(error, change=True) == code


def test_a_read_that_no_server_ever_answered_could_not_connect() -> None:
    error = failure(3005, outcome="not_applied").exception()
    assert exit_code(error, target=Target("haptera://h", answered=False)) == 3
    assert exit_code(error, target=Target("haptera://h", answered=True)) == 5


@pytest.mark.parametrize(
    ("answered", "words"), [(False, "haptera://h has never answered"), (True, "haptera://h had answered before")]
)
def test_a_timeout_names_the_server(answered: bool, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = failure(3005, outcome="unknown").exception()
    assert tell(error, change=True, target=Target("haptera://h", answered)) == 6
    said = capsys.readouterr().err
    assert said == f"haptera: DEADLINE_EXCEEDED (3005): {error.message}; {words}; the change may have been applied\n"
    with output.errors_as_json(True):
        tell(error, change=True, target=Target("haptera://h", answered))
    assert json.loads(capsys.readouterr().err) == {
        "error": {
            "name": "DEADLINE_EXCEEDED",
            "code": 3005,
            "message": error.message,
            "details": {},
            "server": "haptera://h",
            "answered": answered,
            "outcome": "unknown",
        },
        "exit_code": 6,
    }


def test_a_server_that_takes_connections_and_says_nothing_may_speak_another_protocol(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = failure(3005, outcome="not_applied").exception()
    assert tell(error, target=Target("haptera://h", answered=False, connected=True)) == 3
    said, help_ = capsys.readouterr().err.splitlines()
    assert said.endswith("; haptera://h took the connection and never answered")
    assert "a server that speaks another protocol, as Redis" in help_
    assert tell(error, target=Target("haptera://h", answered=True, connected=True)) == 5
    assert "another protocol" not in capsys.readouterr().err


def test_a_server_that_has_said_something_is_not_said_to_have_never_answered(
    capsys: pytest.CaptureFixture[str],
) -> None:
    refusal = failure(1008, outcome="not_applied")
    refused = ConnectionLost("this address speaks RESP", outcome="not_applied", failure=refusal)
    foreign = ConnectionLost("the server at 1.2.3.4:5 speaks HTTP, not Haptera", outcome="not_applied")
    foreign.__cause__ = ForeignBytes("HTTP")
    for error in (refused, foreign):
        tell(error, target=Target("haptera://h", answered=False, connected=True))
        assert capsys.readouterr().err == f"haptera: {error}; the server is haptera://h\n"


def test_json_of_an_error_has_the_server_even_where_its_text_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Trap: an outcome that is not told."""
    error = ConnectionLost("no connection to haptera://h in time", outcome="not_applied")
    with output.errors_as_json(True):
        tell(error, target=Target("haptera://h", answered=False))
    told = json.loads(capsys.readouterr().err)["error"]
    assert told == {"message": str(error), "server": "haptera://h", "answered": False}


def test_json_has_no_character_that_a_terminal_obeys() -> None:
    """Trap: control characters and marks of writing direction, raw in the JSON that a terminal shows."""
    value = {"key": "a\x9b\u202e\x7f\x1b\u2028\U000e0001é", "value": "plain"}
    text = output.json_text(value)
    assert text.isprintable()
    assert "\\u009b\\u202e\\u007f" in text
    assert json.loads(text) == value
    assert json.loads(output.json_text({"name": "\udcff", "data": b"x"}))["name"] == "\udcff"


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--url", "u", "get", "k"], ["get", "--url", "u", "k"]),
        (["--json", "--timeout=2", "get", "k", "--json"], ["get", "--json", "--timeout=2", "k", "--json"]),
        (["get", "k"], ["get", "k"]),
        (["--url"], ["--url"]),
    ],
)
def test_client_options_may_stand_before_the_command(args: list[str], expected: list[str]) -> None:
    assert behind_the_command(args) == expected


@pytest.mark.parametrize(("code", "step"), [(2001, "--user NAME"), (2002, "haptera passwd USER"), (2005, "--url ")])
def test_a_login_that_is_missing_or_failed_names_the_server_that_has_answered(
    code: int, step: str, capsys: pytest.CaptureFixture[str]
) -> None:
    refusal = failure(code, outcome="not_applied")
    for error in (refusal.exception(), ConnectionLost(refusal.message, outcome="not_applied", failure=refusal)):
        target = Target("haptera://h", answered=False)
        assert tell(error, target=target) == 4
        said, help_ = capsys.readouterr().err.splitlines()
        assert said.endswith(f"{refusal.message}; the server is haptera://h")
        assert step in help_
        with output.errors_as_json(True):
            tell(error, target=target)
        told = json.loads(capsys.readouterr().err)["error"]
        assert (told["server"], told["answered"]) == ("haptera://h", True)
