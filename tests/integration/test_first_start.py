"""The first start of `haptera serve` with authentication, as a process: the password is shown once, or nowhere."""

from __future__ import annotations

import shlex
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.commands import run
from tests.support.planted import PASSWORD
from tests.support.processes import children_of
from tests.unit.node.process import serving

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.unit.node.process import Serving

SHOWN = "Its password is not shown again: "
GIVEN: Mapping[str, str] = {"HAPTERA_ADMIN_PASSWORD": PASSWORD}


def login(monkeypatch: pytest.MonkeyPatch, url: str, user: str, password: str) -> int:
    """The exit code of a command with this credential."""
    monkeypatch.setenv("HAPTERA_PASSWORD", password)
    code = run("set", "k", "v", "--timeout", "60", "--url", url.replace("://", f"://{user}@")).code
    monkeypatch.delenv("HAPTERA_PASSWORD")
    return code


def stop(node: Serving) -> str:
    """Stop a node; the rest of its standard output."""
    node.signal()
    assert node.end() == 0
    assert node.process.stdout is not None
    output: str = node.process.stdout.read()
    return output


def test_a_generated_password_is_shown_once_and_is_in_no_log_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "d"
    with serving(data, "--admin-user", "root", "--log-level", "debug", auth=True) as node:
        node.ready()
        assert node.process.stdout is not None
        line = node.process.stdout.readline()
        told, _, password = line.strip().partition(SHOWN)
        assert told == "The administrator of this store is root. "
        assert login(monkeypatch, node.url, "root", password) == 0
        assert login(monkeypatch, node.url, "root", password + "x") == 4
        assert run("get", "k", "--url", node.url).code == 4
        assert run("get", "k", "--url", f"haptera+unix://{data}/haptera.sock").text == "v\n"
        assert stop(node) == ""
        assert password not in str(node.events)
        assert [event for event in node.events if event["event"] == "administrator_made"]
    assert not any(password.encode() in path.read_bytes() for path in data.rglob("*") if path.is_file())
    with serving(data, "--admin-user", "root", auth=True) as node:
        assert login(monkeypatch, node.ready().url, "root", password) == 0
        assert stop(node) == ""


def test_a_given_password_is_shown_nowhere_and_another_one_is_ignored_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(tmp_path / "d", environ=GIVEN, auth=True) as node:
        assert login(monkeypatch, node.ready().url, "admin", PASSWORD) == 0
        assert stop(node) == ""
        assert PASSWORD not in str(node.events)
    with serving(tmp_path / "d", environ={"HAPTERA_ADMIN_PASSWORD": "some other password"}, auth=True) as node:
        assert login(monkeypatch, node.ready().url, "admin", PASSWORD) == 0
        assert "admin_password_ignored" in node.names()
        assert stop(node) == ""


def test_a_weak_password_ends_with_15_and_is_not_repeated(tmp_path: Path) -> None:
    with serving(tmp_path / "d", environ={"HAPTERA_ADMIN_PASSWORD": "sesame!"}, auth=True) as node:
        assert node.end() == 15
        assert "at least 12 characters" in node.events[-1]["reason"]
        assert "sesame!" not in str(node.events)
    assert list(tmp_path.iterdir()) == []  # nothing was made


def test_a_password_file_that_is_not_there_ends_with_15_before_anything_is_made(tmp_path: Path) -> None:
    missing = ("--admin-password-file", str(tmp_path / "none"))
    with serving(tmp_path / "d", *missing, auth=True) as node:
        assert node.end() == 15
        assert f"admin password file {tmp_path / 'none'}" in node.events[-1]["reason"]
    assert list(tmp_path.iterdir()) == []
    with serving(tmp_path / "d", environ=GIVEN, auth=True) as node:
        node.ready()
        assert stop(node) == ""
    with serving(tmp_path / "d", *missing, auth=True) as node:  # it has an administrator, and reads no password
        node.ready()
        assert stop(node) == ""


def test_the_processes_that_a_node_starts_do_not_have_the_password(tmp_path: Path) -> None:
    """The command of the master key is the first of them, and the second process that makes a snapshot another."""
    if not Path("/proc/self/environ").exists():
        pytest.skip("it looks into /proc")
    key, seen = tmp_path / "key", tmp_path / "seen"
    key.write_text("ab" * 32)
    command = f"sh -c {shlex.quote(f'env > {seen}; cat {key}')}"
    with serving(tmp_path / "d", "--master-key-command", command, environ=GIVEN, auth=True) as node:
        node.ready()
        local = f"haptera+unix://{tmp_path}/d/haptera.sock"
        found: list[bytes] = []
        done = threading.Event()

        def watch() -> None:
            while not done.is_set():
                for pid in children_of(node.process.pid):
                    for name in ("environ", "cmdline"):
                        try:
                            found.append(Path(f"/proc/{pid}/{name}").read_bytes())
                        except OSError:
                            continue

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            assert run("set", "k", "v", "--url", local).code == 0
            assert run("snapshot", "--url", local).code == 0
        finally:
            done.set()
            watcher.join()
        own = Path(f"/proc/{node.process.pid}/environ").read_bytes()
        assert any(b"haptera.node.snapshots.process" in text for text in found), "the watcher has met no second process"
        # A child between fork and exec is the node still.
        assert not any(PASSWORD.encode() in text for text in found if text != own)
        assert PASSWORD not in seen.read_text()
        node.signal()
        assert node.end() == 0


def test_an_address_beyond_this_machine_ends_with_15_before_anything_is_made(tmp_path: Path) -> None:
    for options in (["--listen", "haptera://0.0.0.0:0"], ["--listen", "haptera://0.0.0.0:0", "--no-auth"]):
        serve = [sys.executable, "-m", "haptera", "serve", "--data-dir", "d", *options]
        ended = subprocess.run(serve, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert (ended.returncode, ended.stdout) == (15, "")
        assert "can be reached from other machines" in ended.stderr
        assert "insecure_listen" in ended.stderr
        assert list(tmp_path.iterdir()) == []


def test_the_greeting_says_who_may_come_in(tmp_path: Path) -> None:
    signing = ("--listen", "haptera://127.0.0.1:0?signed=scram")
    for options, said in (
        ((), "each has to log in, but for your own account"),
        (("--no-auth",), "anyone who can"),
        (signing, "with keys of each login"),
    ):
        with serving(tmp_path / "d", "--log-format", "text", *options, auth=True) as node:
            assert node.process.stderr is not None
            lines: list[str] = []
            while not lines or not lines[-1].startswith("Ctrl-C"):
                lines.append(node.process.stderr.readline())
                assert node.process.poll() is None, lines
            assert any(said in line for line in lines)
            node.signal()
            node.process.communicate()


def test_a_directory_that_others_may_change_gets_a_warning_at_each_start(tmp_path: Path) -> None:
    data = tmp_path / "d"
    for mode, warned in ((0o700, False), (0o777, True), (0o750, False)):
        if data.exists():
            data.chmod(mode)
        with serving(data, environ=GIVEN, auth=True) as node:
            node.ready()
            assert stop(node) == ""
            told = [event for event in node.events if event["event"] == "directory_open_to_others"]
        assert [event["path"] for event in told] == ([str(data)] if warned else [])
        data.chmod(0o700)
