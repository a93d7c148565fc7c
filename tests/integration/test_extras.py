"""The command line where packages are missing that an extra brings."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from haptera.cli.extras import EXTRA_OF
from tests.integration.commands import run
from tests.integration.test_cli_streams import Unheard

SERVER = ("cryptography", "sortedcontainers", "uvloop")
CLI = ("click", "prompt_toolkit", "rich")

PROGRAM = """
import sys
for package in {missing!r}:
    sys.modules[package] = None  # an import of it fails as that of a package that is not installed does
sys.argv[1:] = {args!r}
from haptera.cli.main import main
main()
"""


def without(missing: tuple[str, ...], *args: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(missing=missing, args=list(args))],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
    )


@pytest.mark.parametrize(
    ("missing", "args", "code", "named"),
    [
        (CLI, ("get", "k"), 2, "the package click: pip install 'haptera[cli]'"),
        (CLI, ("serve",), 15, "the package click: pip install 'haptera[server]'"),
        (SERVER, ("serve",), 15, "pip install 'haptera[server]'"),
        (("sortedcontainers",), ("serve",), 15, "the package sortedcontainers: pip install 'haptera[server]'"),
        (("cryptography",), ("serve",), 15, "the package cryptography: pip install 'haptera[server]'"),
        (SERVER, ("bench", "read", "--embedded"), 2, "pip install 'haptera[server]'"),
        (
            ("zstandard",),
            ("serve", "--listen", "haptera://127.0.0.1:0", "--compression", "zstd"),
            15,
            "pip install 'haptera[zstd]'",
        ),
        (("zstandard",), ("get", "k", "--url", "haptera://h?compression=zstd"), 2, "pip install 'haptera[zstd]'"),
    ],
)
def test_a_missing_extra_is_named_with_its_command(
    missing: tuple[str, ...], args: tuple[str, ...], code: int, named: str, tmp_path: Path
) -> None:
    """Trap: extras that are named too late, by a traceback or by the exit code for "the answer is no"."""
    ended = without(missing, *args, cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert ended.stderr.startswith("haptera: ")
    assert ended.stderr.endswith(f"{named}\n")
    assert ended.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == [], "nothing was made"


def test_a_missing_extra_is_json_where_errors_are() -> None:
    told = json.loads(without(CLI, "get", "k", "--json").stderr)
    assert told == {"error": {"message": "this needs the package click: pip install 'haptera[cli]'"}, "exit_code": 2}


def test_the_client_needs_none_of_the_server() -> None:
    ended = without((*SERVER, "rich"), "get", "k", "--url", "haptera://127.0.0.1:1")
    assert ended.returncode == 3


def test_the_extra_of_a_package_is_the_one_that_has_it() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for package, extra in EXTRA_OF.items():
        assert any(line.startswith(package) for line in project["optional-dependencies"][extra]), package
    # `haptera serve` needs no more than its own extra.
    assert any(line.startswith("click") for line in project["optional-dependencies"]["server"])


def test_the_extra_of_the_server_serves(short_path: Path) -> None:
    program = PROGRAM.format(missing=("rich", "zstandard"), args=[]).replace("sys.argv[1:] = []\n", "")
    with Unheard(short_path, "2>&-", program=program) as node:
        assert run("set", "k", "v", "--url", node.url).code == 0
