"""Virtual environments with the built wheel in them and nothing of the checkout, and how programs run there."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from tests.support.processes import start
from tools.distributions import ROOT, UV

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SECONDS_MAX: Final = 100
PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
#: The oldest and the newest Python that the project names.
NAMED: Final = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if "Python :: 3." in line]
OWN_PYTHON: Final = "{}.{}".format(*sys.version_info[:2])


class Cell(NamedTuple):
    """A Python, and which versions of the dependencies are beside the wheel: the ``newest`` or the ``oldest``."""

    python: str
    versions: str

    def __str__(self) -> str:
        return f"{self.python}-{self.versions}"


OWN_CELL: Final = Cell(OWN_PYTHON, "newest")
#: Each once, the one that is tried before each change first.
CELLS: Final = list(
    dict.fromkeys([OWN_CELL, *(Cell(python, age) for python in (NAMED[0], NAMED[-1]) for age in ("oldest", "newest"))])
)


@cache
def interpreter(python: str) -> str | None:
    """The path of a Python of that version, or None where there is none."""
    if python == OWN_PYTHON:
        return sys.executable
    found = subprocess.run([ROOT / "tools/pythons.sh"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    say = "import sys; print('%d.%d' % sys.version_info[:2])"
    for path in found.splitlines():
        if subprocess.run([path, "-c", say], capture_output=True, text=True, check=True).stdout.strip() == python:
            return path
    return None


def uv(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run uv; a failure is an error with all that it said."""
    done = subprocess.run([*UV, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"uv {' '.join(arguments)}: {done.stderr}")
    return done


class Node(NamedTuple):
    """A running node. The URLs are under their schemes."""

    pid: int
    urls: dict[str, str]

    @property
    def url(self) -> str:
        """Where clients of Haptera's own protocol reach it."""
        return self.urls["haptera"]


class Environment:
    """One of them, and its programs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = str(folder / "bin" / "python")

    @classmethod
    def make(
        cls, folder: Path, python: str, cell: Cell, wheel: Path, extras: Sequence[str], beside: Sequence[str]
    ) -> Environment:
        """Make one with the wheel, what the extras bring, and the packages ``beside``.

        The dependencies are named beside the wheel, by pyproject.toml, because the oldest versions are chosen of what
        is named alone: the dependencies of the dependencies are not for us to bound.
        """
        uv("venv", "--quiet", "--python", python, str(folder))
        command = ["pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), "--only-binary", ":all:"]
        if cell.versions == "oldest":
            command += ["--resolution", "lowest-direct"]
        command += [
            "--requirements",
            str(ROOT / "pyproject.toml"),
            *(part for extra in extras for part in ("--extra", extra)),
        ]
        uv(*command, str(wheel), *beside)
        return cls(folder)

    def packages(self) -> dict[str, str]:
        """The versions of the distributions that are installed, by their names."""
        lines = uv("pip", "freeze", "--python", self.python).stdout.splitlines()
        return {
            name.strip(): version for name, _, version in (line.replace(" @ ", "==").partition("==") for line in lines)
        }

    def variables(self, home: Path, **more: str) -> dict[str, str]:
        """The variables of a program: its commands are this environment's, and no setting of the tests reaches it."""
        path = f"{self.folder / 'bin'}:/usr/local/bin:/usr/bin:/bin"
        return {"PATH": path, "HOME": str(home), "LANG": "C.UTF-8", **more}

    def run(self, command: Sequence[str], cwd: Path, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the folder ``cwd``, which is its home too."""
        return subprocess.run(
            list(command),
            cwd=cwd,
            env=self.variables(cwd, **more),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )

    def run_program(self, program: str | Path, cwd: Path, *arguments: str, **more: str) -> str:
        """Run a program that must end well and say nothing on standard error; return its output.

        Isolated (``-I``): neither its folder nor the current one is searched for modules.
        """
        place = [str(program)] if isinstance(program, Path) else ["-c", program]
        done = self.run([self.python, "-I", "-W", "error", *place, *arguments], cwd, **more)
        assert (done.returncode, done.stderr) == (0, ""), f"{done.returncode}: {done.stderr}"
        return done.stdout

    @contextlib.contextmanager
    def node(self, folder: Path, *options: str, **more: str) -> Iterator[Node]:
        """A node of this environment without authentication, with its data below ``folder``.

        Without an option that says where to listen it is a port of its own choice, beside the socket of its directory.
        """
        listen = () if "--listen" in options else ("--listen", "haptera://127.0.0.1:0")
        command = ["haptera", "serve", "--data-dir", str(folder / "data"), "--no-auth", "--log-format", "json"]
        command[0] = str(self.folder / "bin" / command[0])
        process = start([*command, *listen, *options], cwd=folder, env=self.variables(folder, **more))
        try:
            yield Node(process.pid, _urls(process))
        finally:
            process.terminate()
            process.communicate()


def _urls(process: subprocess.Popen[str]) -> dict[str, str]:
    """Where a node listens, once it listens everywhere: its own socket is the last."""
    assert process.stderr is not None
    urls: dict[str, str] = {}
    for line in process.stderr:
        event = json.loads(line)
        if event["event"] == "listening":
            urls[event["url"].partition("://")[0]] = event["url"]
            if "haptera+unix" in urls:
                return urls
    raise AssertionError(f"the node ended with {process.wait()}: {urls}")
