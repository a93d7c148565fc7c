"""What is written, and what a command needs before it runs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from haptera.cli.client import described, exit_code
from haptera.cli.main import MODULES, SUMMARIES
from haptera.cli.output import entry_fields, field, shown
from haptera.client import Entry
from haptera.error_codes import VersionMismatch
from haptera.errors import ConfigurationError, ConnectionLost, HapteraError, RemoteProtocolError, ServerError, failure


def test_fields_of_a_line_can_always_be_told_apart() -> None:
    assert field("plain ü") == "plain ü"
    assert field("a\tb\nc\rd\\e") == "a\\tb\\nc\\rd\\\\e"
    assert field(b"\xff\xfeok") == "\\xff\\xfeok"


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
    assert list(MODULES) == list(SUMMARIES)


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
