"""Trap: a torn tail that is none. A node that was killed and then damaged ends with 11, and its log stays as it is."""

from __future__ import annotations

import asyncio
import shutil
import signal
from typing import TYPE_CHECKING

import pytest

import haptera
from haptera.storage.segment_format import RECORD_HEADER_SIZE, SEGMENT_HEADER_SIZE
from tests.unit.node.process import serving

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ENTRIES = 60


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    """The directory of a node that was killed when it had answered, and where the records of its segment begin."""
    path = tmp_path_factory.mktemp("killed") / "d"

    async def fill(url: str) -> None:
        async with haptera.connect(url) as db:
            for number in range(ENTRIES):
                assert await db.set(f"k{number}", b"value") == number + 1

    with serving(path) as node:
        asyncio.run(fill(node.ready().url))
        node.signal(signal.SIGKILL)
        node.end()
    (segment,) = (path / "log").glob("*.seg")
    data, starts, at = segment.read_bytes(), [], SEGMENT_HEADER_SIZE
    while length := int.from_bytes(data[at : at + 4], "big"):
        starts.append(at)
        at += RECORD_HEADER_SIZE + length
    assert len(starts) >= ENTRIES
    return path, starts


def changed(byte: int) -> int:
    """Another byte, and no zero, which might be missing."""
    return byte % 255 + 1


def damage_the_last_records(segment: Path, starts: list[int]) -> None:
    """All of the last fifteen, in the checksum of the header and in what follows it."""
    data = bytearray(segment.read_bytes())
    for at in starts[-15:]:
        data[at + RECORD_HEADER_SIZE - 1] = changed(data[at + RECORD_HEADER_SIZE - 1])
        data[at + RECORD_HEADER_SIZE] = changed(data[at + RECORD_HEADER_SIZE])
    segment.write_bytes(data)


def zero_the_middle_of_a_record_and_damage_the_headers_behind_it(segment: Path, starts: list[int]) -> None:
    data = bytearray(segment.read_bytes())
    data[starts[-15] + RECORD_HEADER_SIZE : starts[-14]] = bytes(starts[-14] - starts[-15] - RECORD_HEADER_SIZE)
    for at in starts[-14:]:
        data[at : at + RECORD_HEADER_SIZE] = b"\xff" * RECORD_HEADER_SIZE
    segment.write_bytes(data)


def damage_the_last_record(segment: Path, starts: list[int]) -> None:
    data = bytearray(segment.read_bytes().rstrip(b"\0"))
    assert len(data) > starts[-1] + RECORD_HEADER_SIZE
    data[-1] = changed(data[-1])
    segment.write_bytes(data.ljust(segment.stat().st_size, b"\0"))


def cut_to_nothing(segment: Path, starts: list[int]) -> None:
    assert starts
    segment.write_bytes(b"")


@pytest.mark.parametrize(
    "damage",
    [
        damage_the_last_records,
        zero_the_middle_of_a_record_and_damage_the_headers_behind_it,
        damage_the_last_record,
        cut_to_nothing,
    ],
)
def test_damage_at_the_end_of_a_killed_nodes_log_is_refused(
    tmp_path: Path, killed: tuple[Path, list[int]], damage: Callable[[Path, list[int]], None]
) -> None:
    shutil.copytree(killed[0], tmp_path / "d", ignore=shutil.ignore_patterns("*.sock"))
    (segment,) = (tmp_path / "d" / "log").glob("*.seg")
    damage(segment, killed[1])
    left = segment.read_bytes()
    with serving(tmp_path / "d") as node:
        assert node.end() == 11
        assert str(segment.name) in node.events[-1]["reason"]
    assert segment.read_bytes() == left
