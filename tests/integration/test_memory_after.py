"""A node's process, and a client's, use no more memory after five waves of calls that come to nothing than after two.

The bytes that a process has are too noisy for that; those that its allocators have given out are not.
`tests.unit.node.test_nothing_left_behind` counts the node's own tables instead, in memory and on a virtual clock.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import pytest

from bench import memory_after

if TYPE_CHECKING:
    from pathlib import Path

COUNT: Final = 2000
#: Blocks that may be more by chance, of which some are the events of a few changes. Three waves are 120 calls at least.
BLOCKS_MAX: Final = 1000
#: The last events of the store go by blocks of 512, each of which is some small objects.
BLOCKS_OF_EVENTS_MAX: Final = 4000
#: Bytes by which a table may grow in one step. Small things that are left are in the blocks.
USED_MAX: Final = 512 * 1024


@pytest.mark.long
@pytest.mark.parametrize("situation", memory_after.SITUATIONS, ids=lambda situation: situation.__name__)
def test_no_memory_is_kept(situation: Any, tmp_path: Path) -> None:
    grown = memory_after.measure(tmp_path, situation, COUNT)["grown"]
    blocks_max = BLOCKS_OF_EVENTS_MAX if situation is memory_after.expired_leases else BLOCKS_MAX
    assert grown["blocks"] <= blocks_max
    assert grown["used"] <= USED_MAX


@pytest.mark.long
@pytest.mark.parametrize("size", [100, 100_000])
def test_memory_that_is_kept_is_seen(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The allocators count small and large blocks that a wave leaves behind, or the tests above would prove nothing."""
    kept: list[bytes] = []

    async def keep(at: memory_after.At) -> None:
        kept.extend(os.urandom(size) for _ in range(at.count))

    monkeypatch.setattr(memory_after, "OF_CLIENT", (keep,))
    grown = memory_after.measure(tmp_path, keep, 400)["grown"]
    assert grown["blocks"] > BLOCKS_MAX if size < 512 else grown["used"] > 10 * USED_MAX
