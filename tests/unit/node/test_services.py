"""The server and session services of a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from haptera import __version__
from haptera.node.commands import Envelope
from haptera.node.health import health
from haptera.node.metrics import Metrics
from haptera.node.services.server import ServerService
from haptera.node.services.session import NodeSessionService
from haptera.state import limits
from haptera.state.operations import Set
from tests.unit.node.doubles import FakePeer
from tests.unit.node.nodes import Asked, opened, turn

if TYPE_CHECKING:
    from haptera.node.node import Node

SERVER_METHODS = (
    "status",
    "health",
    "metrics",
    "backup",
    "doctor",
    "maintenance",
    "rotate_key",
    "snapshot",
    "watch_metrics",
)


def ask(node: Node, method: str, *argument: object, payload: bytes | None = None) -> object:
    request = FakePeer().request(method, *argument, payload=payload, service="server")
    ServerService(node).handle([request.request])
    return request.failure.code if request.failure is not None else request.result


async def test_status_says_what_the_node_is() -> None:
    async with opened() as node:
        Asked(node, Set("a", b""), Set("b", b""))
        await turn()
        status = ask(node, "status")
        assert isinstance(status, dict)
        assert status.pop("uptime_ms") >= 0
        assert status == {
            "version": __version__,
            "node_id": node.node_id,
            "durability": "sync",
            "encrypted": True,
            "revision": 2,
            "index": 1,
            "keys": 2,
            "memory": node.memory.size,
            "snapshot_index": 0,
            "snapshot_memory": node.snapshots.needed_bytes,
            "memory_max": 0,
            "remembered_answers": 0,
            "connections": 0,
            "authentication": False,
            "tls": False,
            "maintenance": False,
            "audit_head": f"0:{'0' * 64}",
            "health": "ok",
        }


async def test_health_warns_before_too_many_answers_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap: a bounded table for everyone that nobody empties, and `health` says ok until it is full."""
    monkeypatch.setattr(limits, "ANSWERS_PER_USER_MAX", 5)
    async with opened() as node:
        told = []
        for number in range(5):
            Asked(node, Envelope(Set("a", b""), bytes([number]) * 16, bytes(32)))
            await turn()
            state, reason, *_ = health(node)
            told.append((state, reason != ""))
        assert told == [("ok", False)] * 3 + [("ok", True), ("full", True)]
        assert node.metrics.values()["remembered_answers"] == 5


async def test_health_tells_of_a_failed_disk_and_of_stopping() -> None:
    async with opened() as node:
        assert ask(node, "health") == ["ok", ""]
        node._on_failure(OSError("gone"))
        state, reason, *_ = health(node)
        assert (state, bool(reason)) == ("failed", True)
    async with opened() as node:
        await node.aclose()
        assert health(node)[0] == "stopping"


async def test_metrics_are_numbers_by_name() -> None:
    async with opened() as node:
        Asked(node, Set("a", b""))
        await turn()
        metrics = ask(node, "metrics")
        assert isinstance(metrics, dict)
        assert (metrics["log_entries_total"], metrics["keys"], metrics["pending_writes"]) == (1, 1, 0)


@pytest.mark.parametrize("payload", [b"", b"\x91\x01", b"\x80", b"\x90\x00"])
async def test_an_argument_that_is_not_empty_is_refused(payload: bytes) -> None:
    async with opened() as node:
        assert ask(node, "status", payload=payload) == 3003


async def test_an_unknown_method_is_refused() -> None:
    async with opened() as node:
        assert ask(node, "watch") == 3002


async def test_whoami_is_nobody() -> None:
    peer = FakePeer()
    requests = [peer.request("whoami", service="session"), peer.request("who", service="session")]
    NodeSessionService(Metrics(), lambda user: ()).handle([request.request for request in requests])
    assert requests[0].result == {"user": "", "roles": [], "mechanism": "", "secure": False}
    assert requests[1].code == 3002


async def test_requests_to_what_is_hosted_are_counted_and_no_others() -> None:
    async with opened() as node:
        before = node.metrics.values()
        ask(node, "status")
        ask(node, "status", payload=b"")
        ask(node, "no such method")
        after = node.metrics.values()
        assert after['requests_total{method="server.status"}'] == 2
        assert after.keys() - before.keys() <= {f'requests_total{{method="server.{name}"}}' for name in SERVER_METHODS}
