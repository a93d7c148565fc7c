"""Clients of Redis do their normal work against a node: each a program as its users would write one.

Each program runs against a real Redis too, where one is installed: so that a program that asks for too much is found.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from haptera.testing import node_in_thread
from tests.support.certificates import Authority
from tests.support.processes import start
from tests.support.redis_server import needs_redis, real_redis_at_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PROGRAMS = Path(__file__).parent / "redis_clients"

#: Seconds that a program may take, on a machine with much else to do.
PROGRAM_SECONDS_MAX = 90

#: The programs, and the modules that each needs.
PYTHON_PROGRAMS = {
    "with_redis_py": ["redis"],
    "with_asyncio_redis": ["redis"],
    "with_coredis": ["coredis"],
    "with_valkey_glide": ["glide"],
    "with_django": ["django", "django_ratelimit", "django_celery_results", "celery", "redis"],
}
IOREDIS = PROGRAMS / "ioredis"


@contextmanager
def node_at_port() -> Iterator[str]:
    """A node that speaks RESP at a port of 127.0.0.1. Gives the URL as clients of Redis write it."""
    with node_in_thread(storage="memory", listen="resp://127.0.0.1:0") as url:
        yield url.replace("resp://", "redis://")


@contextmanager
def node_inside_tls(files: Path) -> Iterator[int]:
    """A node that speaks RESP inside TLS, with ``server.pem`` and ``server.key`` among the files. Gives its port."""
    options = f"cert={quote(str(files / 'server.pem'))}&key={quote(str(files / 'server.key'))}"
    with node_in_thread(storage="memory", listen=f"resps://127.0.0.1:0?{options}") as url:
        yield int(url.partition("?")[0].rpartition(":")[2])


def run(command: Sequence[str], url: str) -> None:
    """Run a program, which says `done` at its end."""
    process = start([*command, url])
    try:
        output, errors = process.communicate(timeout=PROGRAM_SECONDS_MAX)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    assert output == "done\n"


def python_program(name: str) -> list[str]:
    """The command of a program, if all that it needs is installed."""
    missing = [module for module in PYTHON_PROGRAMS[name] if importlib.util.find_spec(module) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (the dependency group `clients`)")
    return [sys.executable, str(PROGRAMS / f"{name}.py")]


def ioredis_program() -> list[str]:
    """The command of the program with ioredis, if that is installed."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not on PATH (Debian: nodejs)")
    if not (IOREDIS / "node_modules").exists():
        pytest.skip("ioredis is not installed: npm ci --prefix tests/integration/redis_clients/ioredis")
    return [node, str(IOREDIS / "with_ioredis.js")]


@pytest.mark.parametrize("name", PYTHON_PROGRAMS)
def test_a_python_client_works_with_a_node(name: str) -> None:
    command = python_program(name)
    with node_at_port() as url:
        run(command, url)


@pytest.mark.parametrize("name", ["with_redis_py", "with_asyncio_redis"])
def test_a_python_client_works_inside_tls_and_checks_the_certificate(name: str, tmp_path: Path) -> None:
    command = python_program(name)
    ours, others = Authority(tmp_path), Authority(tmp_path, "others")
    ours.issue("server", "127.0.0.1")
    with node_inside_tls(tmp_path) as port:
        run(command, f"rediss://127.0.0.1:{port}?ssl_ca_certs={quote(str(ours.path))}")
        process = start([*command, f"rediss://127.0.0.1:{port}?ssl_ca_certs={quote(str(others.path))}"])
        _, errors = process.communicate(timeout=PROGRAM_SECONDS_MAX)
        assert process.returncode != 0
        assert "CERTIFICATE_VERIFY_FAILED" in errors


@needs_redis
@pytest.mark.parametrize("name", PYTHON_PROGRAMS)
def test_a_python_client_works_with_a_redis_alike(name: str) -> None:
    command = python_program(name)
    with real_redis_at_port() as url:
        run(command, url)


def test_ioredis_works_with_a_node() -> None:
    command = ioredis_program()
    with node_at_port() as url:
        run(command, url)


@needs_redis
def test_ioredis_works_with_a_redis_alike() -> None:
    command = ioredis_program()
    with real_redis_at_port() as url:
        run(command, url)
