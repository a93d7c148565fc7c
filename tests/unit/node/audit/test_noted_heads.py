"""The head of the audit log in the log of the store: noted as the store runs and stops, and held against at a start."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from haptera.node.audit.audit import NOTE_INTERVAL_S
from haptera.node.audit.chain import Head
from haptera.node.services.admin import administer
from haptera.state.access_operations import AddRole
from haptera.testing import MemoryFileSystem, virtual_clock
from haptera.testing import node as running
from tests.unit.node.audit.logs import lines, methods, paths, verified
from tests.unit.node.nodes import opened

if TYPE_CHECKING:
    import pytest

    from haptera.node.node import Node


async def administer_with(node: Node, *roles: str) -> None:
    for role in roles:
        assert await administer(node, "add_role", AddRole(role, [])) == (True,)


def noted(node: Node) -> Head | None:
    head = node._machine.node.audit_head
    return None if head is None else Head(head.sequence, head.digest)


async def test_an_orderly_stop_notes_the_head_and_the_next_start_finds_the_log_as_it_was() -> None:
    fs = MemoryFileSystem()
    async with opened(fs) as node:
        await administer_with(node, "a", "b")
        head = node.audit.head
        assert noted(node) is None
    for _ in range(2):
        async with opened(fs) as node:
            assert noted(node) == head == node.audit.head
    assert methods(fs) == ["audit.begun", *["admin.add_role"] * 4]


@virtual_clock
async def test_a_node_notes_the_head_within_a_minute_and_writes_nothing_for_it_while_nothing_is_recorded() -> None:
    async with running(storage="memory") as url:
        await administer_with(url.node, "a")
        await asyncio.sleep(NOTE_INTERVAL_S + 1)
        assert noted(url.node) == url.node.audit.head
        index = url.node.index
        await asyncio.sleep(10 * NOTE_INTERVAL_S)
        assert url.node.index == index
        await administer_with(url.node, "b")
        await asyncio.sleep(NOTE_INTERVAL_S + 1)
        assert noted(url.node) == url.node.audit.head


async def test_lines_that_were_cut_off_are_found_at_the_next_start(caplog: pytest.LogCaptureFixture) -> None:
    fs = MemoryFileSystem()
    async with opened(fs) as node:
        await administer_with(node, "a", "b")
        head = node.audit.head
    [path] = paths(fs)
    fs.write(path, b"".join(fs.read(path).splitlines(keepends=True)[:2]))
    assert verified(fs).sound, "the files alone do not show it"
    caplog.set_level(logging.ERROR)
    async with opened(fs):
        pass
    assert "audit_behind" in caplog.text
    assert (lines(fs)[-1]["method"], lines(fs)[-1]["detail"]) == ("audit.behind", {"noted": str(head)})
    assert not verified(fs).sound, "and from then on they do"
    async with opened(fs):
        pass
    assert methods(fs).count("audit.behind") == 1


async def test_a_log_that_was_made_again_is_found_at_the_next_start(caplog: pytest.LogCaptureFixture) -> None:
    """An attacker's chain is whole, and as long as the one before."""
    fs, other = MemoryFileSystem(), MemoryFileSystem()
    async with opened(fs) as node:
        await administer_with(node, "a")
    async with opened(other) as node:
        await administer_with(node, "z")
    [path], [made] = paths(fs), paths(other)
    fs.write(path, other.read(made))
    assert verified(fs).sound
    caplog.set_level(logging.ERROR)
    async with opened(fs):
        pass
    assert "audit_differs" in caplog.text
    assert methods(fs)[-1] == "audit.differs"
    async with opened(fs):
        pass
    assert methods(fs).count("audit.differs") == 1, "the head of the log that goes on is noted at the stop"


async def test_a_directory_without_an_audit_log_goes_on_behind_the_noted_head() -> None:
    """As one that was restored: a backup has the head, and not the lines."""
    fs = MemoryFileSystem()
    async with opened(fs) as node:
        await administer_with(node, "a")
        head = node.audit.head
    fs.unlink(paths(fs)[0])
    async with opened(fs) as node:
        await administer_with(node, "b")
    first = lines(fs)[0]
    assert (first["sequence"], first["method"], first["previous"]) == (
        head.sequence + 1,
        "audit.continued",
        head.digest.hex(),
    )
    assert verified(fs).sound
