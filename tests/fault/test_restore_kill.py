"""kill -9 of a process that restores, at random moments: the target does not open, or is whole."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from haptera.errors import CorruptionError
from haptera.node import NodeConfig, verify
from haptera.state import operations
from haptera.storage import OsFileSystem, open_keyring
from tests.unit.node.offline.directories import START_MS, append, opened, snapshot

if TYPE_CHECKING:
    from pathlib import Path

ENTRIES = 400
REVISION = 333


@pytest.mark.parametrize("kills", [3, pytest.param(100, marks=pytest.mark.long)])
def test_a_restore_that_is_killed_leaves_nothing_or_the_whole(tmp_path: Path, kills: int) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    choices = random.Random(seed)
    source, target = str(tmp_path / "source"), tmp_path / "target"
    durable = opened(OsFileSystem(), NodeConfig(data_dir=source))
    for number in range(ENTRIES):
        append(durable, [operations.Set(f"key {number % 100}", bytes([number % 256]) * 20_000)], START_MS + number)
        if number == ENTRIES // 2:
            snapshot(durable, OsFileSystem())
    durable.close()
    command = [sys.executable, "-m", "haptera", "pitr", "restore", source, "--to-revision", str(REVISION)]
    started = time.monotonic()
    subprocess.run([*command, "--target", str(target)], check=True, capture_output=True)
    longest = time.monotonic() - started
    expected = verify(OsFileSystem(), NodeConfig(data_dir=str(target)), open_keyring).start.digest
    for _ in range(kills):
        shutil.rmtree(target, ignore_errors=True)
        with subprocess.Popen([*command, "--target", str(target)], stdout=subprocess.DEVNULL) as process:
            time.sleep(longest * choices.uniform(0.5, 1.1))
            process.kill()
        if (target / "node.toml").exists():
            found = verify(OsFileSystem(), NodeConfig(data_dir=str(target)), open_keyring)
            assert found.sound, f"seed {seed}"
            assert found.start.digest == expected, f"seed {seed}"
        elif (target / "keys").exists():
            with pytest.raises(CorruptionError):
                opened(OsFileSystem(), NodeConfig(data_dir=str(target)))
    assert verify(OsFileSystem(), NodeConfig(data_dir=source), open_keyring).start.revision == ENTRIES
