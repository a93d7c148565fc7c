"""`haptera shell` on a terminal of tmux, as a person drives it."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

import pytest

from haptera.testing import node_in_thread
from tests.integration.commands import run
from tests.unit.node.process import Serving, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TMUX: Final = shutil.which("tmux") or ""
pytestmark = pytest.mark.skipif(not TMUX, reason="tmux is not on PATH (Debian: tmux)")

#: Seconds that anything on the screen may take. The machine may have much else to do.
PATIENCE_S: Final = 40.0


class Screen:
    """A shell on a terminal of so many columns, with a history of its own."""

    def __init__(self, folder: Path, command: str, columns: int) -> None:
        self._tmux = [TMUX, "-f", "/dev/null", "-S", str(folder / "tmux")]
        self._environment = {**os.environ, "XDG_STATE_HOME": str(folder / "state"), "LC_ALL": "C.UTF-8"}
        self.tmux("new-session", "-d", "-x", str(columns), "-y", "50", command)

    def tmux(self, *words: str) -> str:
        return subprocess.run(
            [*self._tmux, *words], env=self._environment, capture_output=True, text=True, check=True
        ).stdout

    def type(self, *keys: str) -> None:
        """Type text and keys, such as Enter and C-c."""
        self.tmux("send-keys", *keys)

    def line(self, text: str) -> None:
        self.tmux("send-keys", "-l", text)
        self.type("Enter")

    def shown(self) -> str:
        return self.tmux("capture-pane", "-p", "-S", "-1000")

    def until(self, told: Callable[[str], bool] | str) -> str:
        """The screen, as soon as it has a text, or is as ``told`` wants it."""
        last = time.monotonic() + PATIENCE_S
        while True:
            shown = self.shown()
            if told in shown if isinstance(told, str) else told(shown):
                return shown
            assert time.monotonic() < last, shown
            time.sleep(0.05)

    def close(self) -> None:
        self.tmux("kill-server")


@pytest.fixture
def screens(short_path: Path) -> Iterator[Callable[[str, int], Screen]]:
    opened: list[Screen] = []

    def open_(url: str, columns: int) -> Screen:
        command = f"{shlex.join([sys.executable, '-m', 'haptera', 'shell', url])}; echo left with $?; exec cat"
        opened.append(Screen(short_path, command, columns))
        opened[0].until("Ctrl-D leaves")
        return opened[0]

    yield open_
    for screen in opened:
        screen.close()


@pytest.fixture
def url() -> Iterator[str]:
    with node_in_thread(listen="tcp") as url:
        yield url


@pytest.mark.parametrize("columns", [200, 40])
def test_completion_results_and_the_end_on_a_wide_and_on_a_narrow_terminal(
    columns: int, url: str, screens: Callable[[str, int], Screen]
) -> None:
    run("set", "customers/ada", "first", "--url", url)
    screen = screens(url, columns)
    screen.type("sc")
    screen.until("List entries in key order" if columns == 200 else "scan")
    screen.type("C-c")
    screen.type("get cust")
    screen.until(lambda shown: shown.count("customers/ada") == 1)
    screen.type("Tab", "Enter")
    screen.until("\nfirst\n")
    screen.line(r"set bin $'\x00\xff\x1b[31mred'")
    screen.line("scan")
    prompt = f"{url.removeprefix('haptera://')}:2>" if columns == 200 else "\n2>"
    shown = screen.until(lambda shown: "version" in shown and shown.rstrip().endswith(prompt))
    assert all(len(line) <= columns for line in shown.splitlines())
    if columns == 200:
        assert "  bin             \\x00\\xff\\x1b[31mred   2\n" in shown
    screen.type("C-d")
    screen.until("left with 0")


def test_ctrl_c_ends_a_long_scan_and_the_shell_goes_on(url: str, screens: Callable[[str, int], Screen]) -> None:
    rows = "".join(f"key{number:06}\t{'v' * 60}\n" for number in range(60_000))
    command = [sys.executable, "-m", "haptera", "import", "-", "--url", url]
    subprocess.run(command, input=f"k\tv\n{rows}", text=True, check=True, capture_output=True)
    screen = screens(url, 120)
    screen.line("scan")
    screen.until("key000000")
    screen.type("C-c")
    shown = screen.until("cancelled")
    assert "key059999" not in shown
    screen.line("get k")
    screen.until("\nv\n")


def test_a_node_that_is_killed_and_started_again_is_told_and_watched_on(
    short_path: Path, unused_port: int, screens: Callable[[str, int], Screen]
) -> None:
    url = f"haptera://127.0.0.1:{unused_port}"
    with serving(short_path / "d", "--listen", url) as node:
        until_it_listens(node, url)
        screen = screens(url, 120)
        screen.line("watch --prefix w")
        screen.until("[1] watch")
        screen.type("a line that is typed")
        node.signal(signal.SIGKILL)
        screen.until("is lost; it is made again")
    with serving(short_path / "d", "--listen", url) as node:
        until_it_listens(node, url)
        screen.until("connected again to")
        run("set", "w/1", "seen", "--url", url)
        screen.until("put     w/1     seen")
        screen.until(lambda shown: shown.rstrip().endswith("> a line that is typed"))  # which is drawn after the event


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not on PATH (Debian: zsh)")
def test_zsh_completes_the_commands_of_haptera(short_path: Path) -> None:
    script = short_path / "completion.zsh"
    script.write_bytes(run("completion", "zsh").out)
    program = short_path / "haptera"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m haptera "$@"\n')
    program.chmod(0o755)
    screen = Screen(short_path, f"PATH={short_path}:$PATH exec zsh -f", 120)
    try:
        screen.line(f"autoload -U compinit; compinit -u -D; source {script}; echo it is re''ady")
        screen.until("it is ready")
        screen.type("haptera dev-c", "Tab")
        screen.until("haptera dev-certs")
    finally:
        screen.close()


def until_it_listens(node: Serving, url: str) -> None:
    while (event := node.read_event()) is not None:
        if event.get("url") == url:
            return
    raise AssertionError(node.events)
