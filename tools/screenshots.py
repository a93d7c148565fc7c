"""Makes the pictures of the command line in docs/pictures, from what a terminal shows.

usage: python -m tools.screenshots            writes the pictures
       python -m tools.screenshots --check    writes nothing; ends with 1 if a picture is not current

tmux is the terminal. A picture is an SVG that loads nothing from elsewhere.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from tools.markdown_links import ROOT

PICTURES: Final = ROOT / "docs" / "pictures"
#: Seconds until a program has shown what is waited for.
PATIENCE_S: Final = 30.0
#: A font that is fetched from another host, in the SVG that rich writes.
FETCHED_FONT: Final = re.compile(r"\s*@font-face \{.*?\}\n", re.DOTALL)


class Picture(NamedTuple):
    """A terminal of so many columns and lines; the lines that are typed, each with the end of the prompt that
    follows its output.
    """

    name: str
    title: str
    columns: int
    lines: int
    typed: tuple[tuple[str, str], ...]


SHELL: Final = Picture(
    "shell.svg",
    "haptera shell",
    96,
    32,
    (
        ("haptera shell", "haptera.sock>"),
        ("set config/colour blue", ":1>"),
        ("set config/size 7 --ttl 3600", ":2>"),
        ("scan --prefix config/", ":2>"),
        ("multi", "(multi)>"),
        ("compare config/colour version = 1", "(multi)>"),
        ("set config/colour green", "(multi)>"),
        ("exec", ":3>"),
        ("get config/colour", ":3>"),
        ("get config/shape", ":3>"),
    ),
)
HELP: Final = Picture("help.svg", "haptera set --help", 96, 44, (("haptera set --help", "$"),))
PICTURES_MADE: Final = (SHELL, HELP)


class Terminal:
    """A tmux server with one window, in a folder where a node runs."""

    def __init__(self, folder: Path, picture: Picture) -> None:
        self._command = ["tmux", "-S", str(folder / "tmux"), "-f", "/dev/null"]
        environment = {
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PS1": "$ ",
            "TERM": "xterm-256color",
        }
        size = ["-x", str(picture.columns), "-y", str(picture.lines)]
        shell = shlex.join(["env", "-i", *(f"{name}={value}" for name, value in environment.items()), "sh"])
        subprocess.run([*self._command, "new-session", "-d", *size, shell], cwd=folder, check=True)

    def type(self, line: str) -> None:
        """Type a line and Enter."""
        subprocess.run([*self._command, "send-keys", "-l", line], check=True)
        subprocess.run([*self._command, "send-keys", "Enter"], check=True)

    def shown(self, *options: str) -> str:
        """Return what the terminal shows."""
        command = [*self._command, "capture-pane", "-p", *options]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def wait_for(self, prompt: str, lines: int) -> None:
        """Return when the last line ends with a prompt, and the terminal has shown more lines than before."""
        give_up = time.monotonic() + PATIENCE_S
        while not (shown := self.shown().rstrip()).endswith(prompt) or shown.count("\n") < lines:
            if time.monotonic() > give_up:
                raise TimeoutError(f"the terminal does not show {prompt!r}:\n{shown}")
            time.sleep(0.05)

    def lines(self) -> int:
        """Return how many lines the terminal has shown."""
        return self.shown().rstrip().count("\n") + 1

    def close(self) -> None:
        """End the terminal."""
        subprocess.run([*self._command, "kill-server"], check=False, capture_output=True)


def svg(picture: Picture) -> str:
    """Return a picture of what the terminal shows, beside a fresh node in the same folder."""
    with _folder() as folder:
        command = [sys.executable, "-m", "haptera", "serve", "--listen", f"haptera+unix://{folder}/s"]
        with (folder / "log").open("wb") as log:
            node = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        terminal = Terminal(folder, picture)
        try:
            _wait_for_socket(folder / "haptera-data" / "haptera.sock", node)
            terminal.wait_for("$", 0)
            for line, prompt in picture.typed:
                lines = terminal.lines()
                terminal.type(line)
                terminal.wait_for(prompt, lines)
            shown = terminal.shown("-e")
        finally:
            terminal.close()
            node.terminate()
            node.wait(timeout=PATIENCE_S)
    return _drawn(picture, shown)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A folder of our own whose name is always the same, because pictures show it."""
    folder = Path("/tmp/demo")  # noqa: S108
    folder.mkdir(mode=0o700)  # another's folder is left alone
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _wait_for_socket(path: Path, node: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not path.exists():
        if node.poll() is not None or time.monotonic() > give_up:
            raise TimeoutError("the node does not start")
        time.sleep(0.05)


def _drawn(picture: Picture, shown: str) -> str:
    console = Console(
        record=True, width=picture.columns, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    console.print(Text.from_ansi(shown.rstrip()), no_wrap=True, crop=True)
    made = console.export_svg(title=picture.title, theme=MONOKAI, unique_id=picture.name.partition(".")[0])
    return FETCHED_FONT.sub("\n", made)


def main(argv: list[str] | None = None) -> int:
    """Write the pictures, or compare them; return the exit status."""
    parser = argparse.ArgumentParser(description="Makes the pictures of the command line in docs/pictures.")
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 if a picture is not current")
    options = parser.parse_args(argv)
    if shutil.which("tmux") is None:
        sys.stderr.write("tmux is the terminal of the pictures, and it is not on PATH (Debian: tmux)\n")
        return 2
    PICTURES.mkdir(exist_ok=True)
    stale = 0
    for picture in PICTURES_MADE:
        path, made = PICTURES / picture.name, svg(picture)
        if options.check:
            if not path.exists() or path.read_text(encoding="utf-8") != made:
                sys.stderr.write(f"{path.relative_to(ROOT)} is not current: run python -m tools.screenshots\n")
                stale += 1
        else:
            path.write_text(made, encoding="utf-8")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
