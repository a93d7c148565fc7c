"""The rules of the layers let a dialect be written: this one stands on the command interface and `transport` alone."""

from __future__ import annotations

import ast
from pathlib import Path

from haptera.node.commands import operations
from haptera.testing import virtual_clock
from tests.unit.dialects.lines import LINE_SIZE_MAX, listen_for_lines
from tests.unit.node.nodes import Asked, opened
from tests.unit.test_architecture import violations
from tests.unit.transport.test_listener import told


def test_the_dialect_keeps_the_rules_of_its_layer() -> None:
    tree = ast.parse((Path(__file__).parent / "lines.py").read_text(encoding="utf-8"))
    assert violations("haptera.dialects.lines", tree) == []
    assert len(violations("haptera.peer.lines", tree)) > 1


@virtual_clock
async def test_a_dialect_serves_a_node() -> None:
    async with opened() as node:
        Asked(node, operations.Set("greeting", b"hello"))
        listener = await listen_for_lines("haptera://127.0.0.1:0", node.commands, max_connections=4)
        assert await told(listener.url, b"greeting\nnothing\ngreeting\n") == b"hello\n! KEY_NOT_FOUND\nhello\n"
        assert await told(listener.url, b"gree") == b""
        assert await told(listener.url, b"k" * (LINE_SIZE_MAX + 1)) == b"! the line is too long\n"
        for _ in range(2):
            await told(listener.url)
        assert await told(listener.url) == b"! 4 connections are enough\n"
        listener.close()
        await listener.wait_closed()
