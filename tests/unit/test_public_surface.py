"""What users may import, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import haptera
from haptera.errors.codes import BY_CODE

DATABASE = {"Database", "Entry", "Scan", "connect", "open"}
MESSAGING = {"Answer", "Credentials", "Peer", "Request", "Server", "Service", "Trace", "dial", "listen", "method"}
ERRORS = {
    "CallError",
    "Code",
    "ConfigurationError",
    "ConnectionLost",
    "CorruptionError",
    "DirectoryInUse",
    "Failure",
    "HapteraError",
    "LocalProtocolError",
    "MissingKey",
    "NewerFormat",
    "Outcome",
    "ProtocolError",
    "RemoteProtocolError",
    "ServerError",
    "StorageError",
    "WrongKey",
    "WrongLoop",
    "failure",
}


def test_the_public_names_are_these_and_no_others() -> None:
    by_code = {error_class.__name__ for error_class in BY_CODE.values()}
    assert set(haptera.__all__) == DATABASE | MESSAGING | ERRORS | by_code | {"__version__"}


@pytest.mark.parametrize("name", haptera.__all__)
def test_a_public_name_leads_to_something(name: str) -> None:
    assert getattr(haptera, name) is not None
    assert name in dir(haptera)


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'haptera' has no attribute 'no_such_name'"):
        haptera.no_such_name  # type: ignore[attr-defined]  # noqa: B018


def test_the_version_is_the_packages() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert haptera.__version__ == project["version"]


def imported_by(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after running the code."""
    script = f"import sys\n{code}\nprint(*sys.modules, sep='\\n')"
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(process.stdout.split())


def test_importing_the_package_imports_none_of_its_parts() -> None:
    loaded = imported_by("import haptera")
    assert {name for name in loaded if name.startswith("haptera")} == {"haptera", "haptera.version"}
    assert not loaded & {"asyncio", "msgspec", "google_crc32c"}


def test_the_client_and_the_messaging_library_need_nothing_beyond_the_base_install() -> None:
    loaded = imported_by(
        "import haptera\nhaptera.connect, haptera.listen, haptera.dial, haptera.open, haptera.DirectoryInUse"
    )
    extras = {"cryptography", "sortedcontainers", "uvloop", "click", "rich", "zstandard"}
    assert not loaded & extras
    assert "haptera.node" not in loaded


def test_nothing_is_printed_where_no_logging_is_set_up(tmp_path: Path) -> None:
    """Opening a store warns of its key file, and a handler that fails is an error in the log: neither is for stderr."""
    script = """
import asyncio, logging, sys, haptera

class Failing(haptera.Service):
    name = "failing"

    @haptera.method
    async def fails(self, request):
        raise ValueError("a fault")

async def main():
    async with haptera.open(sys.argv[1]) as db:
        await db.set("k", b"v")
    async with haptera.listen("haptera://127.0.0.1:0", services=[Failing()]) as server:
        async with haptera.dial(server.url) as peer:
            try:
                await peer.call("failing", "fails")
            except haptera.HandlerFailed:
                print("failed")

asyncio.run(main())
logging.basicConfig(level=logging.WARNING, format="%(message)s")
asyncio.run(main())
"""
    command = [sys.executable, "-c", script, str(tmp_path / "data")]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    assert process.stdout == "failed\nfailed\n"
    # And a program that has set logging up sees all of it, once.
    assert [line for line in process.stderr.splitlines() if line.startswith(("key_file", "handler"))] == [
        "key_file_beside_data",
        "handler_failed",
    ]
