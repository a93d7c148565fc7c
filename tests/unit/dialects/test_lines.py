"""The rules of the layers let a dialect be written: this one stands on two faces of the node and `transport` alone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from haptera.client import connect
from haptera.testing import node, virtual_clock
from tests.unit.dialects.lines import LINE_SIZE_MAX, Lines
from tests.unit.test_architecture import violations
from tests.unit.transport.test_listener import told


@pytest.fixture(autouse=True)
def lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("haptera.testing.nodes.DIALECTS", {"resp": Lines()})


def test_the_dialect_keeps_the_rules_of_its_layer() -> None:
    tree = ast.parse((Path(__file__).parent / "lines.py").read_text(encoding="utf-8"))
    assert violations("haptera.dialects.lines", tree) == []
    assert len(violations("haptera.peer.lines", tree)) > 1


@virtual_clock
async def test_a_dialect_serves_a_node() -> None:
    listen = ("haptera://127.0.0.1:0", "resp://127.0.0.1:0")
    async with node(storage="memory", listen=listen, max_connections=4) as url, connect(url) as db:
        await db.set("greeting", b"hello")
        at = url.server.urls[1].replace("resp", "haptera")
        assert await told(at, b"greeting\nnothing\ngreeting\n") == b"hello\n! KEY_NOT_FOUND\nhello\n"
        assert await told(at, b"gree") == b""
        assert await told(at, b"k" * (LINE_SIZE_MAX + 1)) == b"! the line is too long\n"
        for _ in range(2):
            await told(at)
        assert await told(at) == b"! TOO_MANY_CONNECTIONS\n"
