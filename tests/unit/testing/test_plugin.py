"""The pytest plugin: its fixtures in each mode of pytest-asyncio and without it, and what it costs who has no use for
it.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

ASYNC_TESTS = """
import haptera
import pytest

pytestmark = [{mark}]


async def test_url_and_node(haptera_url, haptera_node):
    async with haptera.connect(haptera_url) as db:
        version = await db.set("k", b"v")
    assert haptera_node.revision == version


async def test_each_test_has_a_fresh_node(haptera_db, haptera_url, haptera_node):
    assert await haptera_db.count() == 0
    await haptera_db.set("k", b"v")
    assert haptera_node.keys == 1
    assert haptera_url.node is haptera_node


async def test_proxy(haptera_proxy, haptera_db, haptera_node):
    async with haptera.connect(haptera_proxy.url) as db:
        await haptera_db.set("k", b"v")
        haptera_proxy.sever()
        assert (await db.get("k")).value == b"v"


@pytest.mark.haptera(storage="memory", listen="tcp", durability="os")
async def test_options(haptera_url, haptera_db):
    assert haptera_url.startswith("haptera://127.0.0.1:")
    assert "log" in haptera_url.filesystem.listdir("/data")
    assert (await haptera_db.status())["durability"] == "os"
"""

PLAIN_TESTS = """
import asyncio

import haptera
import pytest


@pytest.mark.haptera(storage="memory", listen="tcp")
def test_plain(haptera_url):
    assert haptera_url.startswith("haptera://127.0.0.1:")

    async def main():
        async with haptera.connect(haptera_url) as db:
            return await db.set("k", b"v")

    assert asyncio.run(main()) == 1
"""

HEAVY = {"asyncio", "msgspec", "google_crc32c", "cryptography", "haptera.peer", "haptera.node", "haptera.testing.nodes"}


def run_pytest(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    arguments = ["-q", "-p", "no:xdist", "-p", "no:randomly", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *arguments, "-W", "error", "--strict-markers", *options, str(directory)],
        capture_output=True,
        text=True,
        check=False,
        cwd=directory,
        timeout=60,
    )


def test_pytest_finds_it() -> None:
    assert [entry.value for entry in entry_points(group="pytest11", name="haptera")] == ["haptera.testing.plugin"]


@pytest.mark.parametrize(("mode", "mark"), [("auto", ""), ("strict", "pytest.mark.asyncio")])
def test_its_fixtures_work_in_each_mode_of_pytest_asyncio(tmp_path: Path, mode: str, mark: str) -> None:
    (tmp_path / "test_async.py").write_text(ASYNC_TESTS.format(mark=mark))
    (tmp_path / "test_plain.py").write_text(PLAIN_TESTS)
    process = run_pytest(tmp_path, "-o", f"asyncio_mode={mode}", "-o", "asyncio_default_fixture_loop_scope=function")
    assert "5 passed" in process.stdout, process.stdout + process.stderr


@pytest.mark.parametrize(
    ("mark", "option"),
    [("pytest.mark.asyncio(loop_scope='module')", ""), ("", "asyncio_default_test_loop_scope=session")],
    ids=["marker", "configuration"],
)
def test_its_fixtures_are_on_the_loop_of_their_test(tmp_path: Path, mark: str, option: str) -> None:
    """Trap: use from the wrong loop. A node on another loop than its test's would answer nothing."""
    (tmp_path / "test_async.py").write_text(ASYNC_TESTS.format(mark=mark))
    options = ["-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"]
    process = run_pytest(tmp_path, *options, *(("-o", option) if option else ()))
    assert "4 passed" in process.stdout, process.stdout + process.stderr


def test_the_url_needs_no_plugin_for_coroutines(tmp_path: Path) -> None:
    (tmp_path / "test_plain.py").write_text(PLAIN_TESTS)
    process = run_pytest(tmp_path, "-p", "no:asyncio")
    assert "1 passed" in process.stdout, process.stdout + process.stderr


def test_who_does_not_use_it_pays_for_small_modules_alone(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "import sys\n"
        "def pytest_sessionfinish():\n"
        "    print('loaded', *(name for name in sys.modules if name.startswith('haptera')))\n"
        f"    print('heavy', *({HEAVY} & set(sys.modules)))\n"
    )
    (tmp_path / "test_other.py").write_text("def test_other(): pass\n")
    process = run_pytest(tmp_path, "-s", "-p", "no:asyncio", "-p", "no:anyio", "-p", "no:timeout")
    lines = process.stdout.splitlines()
    (loaded,) = (line.split()[1:] for line in lines if "loaded" in line)
    assert set(loaded) == {
        "haptera",
        "haptera.lazy",
        "haptera.version",
        "haptera.testing",
        "haptera.testing.plugin",
        "haptera.testing.fixtures",
    }
    (heavy,) = (line.split()[1:] for line in lines if line.startswith("heavy"))
    assert heavy == []


async def test_here_too(haptera_url: str) -> None:
    assert haptera_url.startswith("haptera+unix://")
