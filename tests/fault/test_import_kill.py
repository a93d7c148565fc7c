"""`kill -9` of imports at random moments: each goes on where the one before it ended, and the store gets the file."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from haptera import sync
from haptera.cli.transfer.import_state import SUFFIX
from haptera.client import connect
from haptera.testing import node_in_thread

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROWS = 8_000
#: Kills of one import, after which it may end.
KILLS = 2


def in_lines(pairs: list[tuple[str, str]]) -> bytes:
    return b"".join(json.dumps({"key": key, "value": value}).encode() + b"\n" for key, value in pairs)


def in_columns(pairs: list[tuple[str, str]]) -> bytes:
    return "".join(f"{key}\t{value}\n" for key, value in pairs).encode()


def in_csv(pairs: list[tuple[str, str]]) -> bytes:
    """Rows of two lines each."""
    return "".join(f'"{key}","{value}\n"\r\n' for key, value in pairs).encode()


def packed(pairs: list[tuple[str, str]]) -> bytes:
    return gzip.compress(in_columns(pairs))


async def entries_of(url: str) -> dict[str, str]:
    async with connect(url) as db:
        return {entry.key: entry.text async for entry in db.scan()}


def killed(url: str, file: Path, chance: random.Random) -> bool:
    """Begin the import, or go on with it, and kill it some changes later; whether it had ended by then."""
    process = subprocess.Popen(
        [sys.executable, "-m", "haptera", "import", str(file), "--resume", "--url", url],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "HAPTERA_URL": ""},
    )
    with sync.connect(url) as db:
        before, wanted = db.status()["revision"], chance.randrange(10)
        while process.poll() is None and db.status()["revision"] - before < wanted:
            time.sleep(0.01)
    process.kill()
    _, err = process.communicate()
    assert process.returncode in {0, -9}, err
    return process.returncode == 0


@pytest.mark.parametrize(
    ("name", "form"),
    [("rows.jsonl", in_lines), ("rows.csv", in_csv), ("rows.tsv.gz", packed)],
)
def test_killed_imports_go_on_and_store_the_file(
    name: str, form: Callable[[list[tuple[str, str]]], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = random.getrandbits(64)
    print(f"seed {seed}")  # shown with a failure
    chance = random.Random(seed)
    keys = [f"k{chance.randrange(ROWS)}" for _ in range(ROWS)]  # some of them twice: the later row wins
    pairs = [(key, f"value {number} of it") for number, key in enumerate(keys)]
    file = tmp_path / name
    file.write_bytes(form(pairs))
    place = tmp_path / (name + SUFFIX)
    with node_in_thread(listen="tcp") as url:
        for _ in range(KILLS):
            if killed(url, file, chance):
                break
            if place.exists():
                noted = json.loads(place.read_bytes())
                stored = asyncio.run(entries_of(url))
                # Each row before the place is stored, by itself or under a later row of its key.
                assert {key for key, _ in pairs[: noted["stored"]]} <= stored.keys()
        ended = subprocess.run(
            [sys.executable, "-m", "haptera", "import", str(file), "--resume", "--url", url, "--json"],
            capture_output=True,
            check=True,
        )
        result = json.loads(ended.stdout)
        assert result["stored"] + result["stored_before"] == ROWS
        end = "\n" if form is in_csv else ""
        assert asyncio.run(entries_of(url)) == {key: value + end for key, value in pairs}
    assert not place.exists()
