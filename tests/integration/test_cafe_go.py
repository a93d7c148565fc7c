"""A client in another language, written from spec/cafe.md alone, works with a node."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.unit.dialects.cafe.raw_client import cafe_node

if TYPE_CHECKING:
    from collections.abc import Sequence

SOURCE = Path(__file__).parent / "cafe_go"


def build(directory: Path) -> Path:
    """Build the client. A machine without Go skips the test."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("the client is a Go program, and Go is not installed")
    program = directory / "cafe"
    command = [go, "build", "-mod=readonly", "-o", str(program), "."]
    built = subprocess.run(command, cwd=SOURCE, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return program


async def said(program: Path, *arguments: str) -> Sequence[str]:
    process = await asyncio.create_subprocess_exec(program, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, errors = await process.communicate()
    assert (process.returncode, errors) == (0, b"")
    return out.decode().splitlines()


async def test_a_client_in_go_runs_every_operation(tmp_path: Path) -> None:
    program = await asyncio.to_thread(build, tmp_path)
    async with cafe_node(tmp_path) as url:
        place, first = url.rpartition("/")[2], 1
        for way in ("plain", "bind", "encrypt"):
            assert await said(program, place, str(tmp_path / "cafe.key"), way) == [
                "GET NOTFOUND",
                f"SET OK {first}",
                "GET OK one",
                f"SET OK {first + 1}",
                "GET OK ",
                f"DEL OK {first + 2}",
                "DEL NOTFOUND",
                "SET ERR 4006",
                f"SET OK {first + 3}",
                "GET OK ü",
                "MANY OK",
            ]
            first += 1004


async def test_a_client_in_go_notices_another_key(tmp_path: Path) -> None:
    program = await asyncio.to_thread(build, tmp_path)
    other = tmp_path / "other.key"
    other.write_bytes(bytes(32))
    async with cafe_node(tmp_path) as url:
        for way in ("plain", "bind"):
            process = await asyncio.create_subprocess_exec(
                program, url.rpartition("/")[2], other, way, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            out, errors = await process.communicate()
            assert (process.returncode, out, errors) == (1, b"", b"the tag is wrong\n")
