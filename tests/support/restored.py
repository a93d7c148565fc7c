"""A store that was restored from a backup, as it takes the place of the one that the backup was made of."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING

from tests.integration.commands import run

if TYPE_CHECKING:
    from pathlib import Path


async def restored(url: str, data: Path, target: Path) -> None:
    """Back up the node at ``url``, whose directory is ``data``, and make the directory ``target`` of that."""
    file, key = str(target.with_suffix(".backup")), data / "master.key"
    made = await asyncio.to_thread(run, "backup", "create", file, "--url", url)
    assert made.code == 0, made.err
    ended = await asyncio.to_thread(run, "restore", file, "--data-dir", str(target), "--master-key-file", str(key))
    assert ended.code == 0, ended.err
    shutil.copyfile(key, target / "master.key")
