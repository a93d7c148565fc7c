"""The server service (spec/protocol.md 7.2): what a node says of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from haptera import __version__
from haptera.error_codes import Code
from haptera.errors import failure
from haptera.peer import Request, Service
from haptera.peer.session import has_no_argument

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from haptera.node.node import Node


class ServerService(Service):
    """Answers `status`, `health` and `metrics` of one node. Each takes an empty array."""

    name = "server"

    def __init__(self, node: Node) -> None:
        self._node = node
        self._answers: dict[str, Callable[[], Any]] = {
            "status": lambda: status(node),
            "health": lambda: health(node),
            "metrics": node.metrics.values,
        }

    def methods(self) -> Sequence[str]:
        """The methods' names, for `session.describe`."""
        return tuple(self._answers)

    def handle(self, requests: list[Request]) -> None:
        """Answer each at once."""
        for request in requests:
            answer = self._answers.get(request.method)
            if answer is None:
                request.fail(failure(Code.UNKNOWN_METHOD, {"service": self.name, "method": request.method}))
                continue
            if has_no_argument(request):
                request.respond(msgspec.msgpack.encode(answer()))


def status(node: Node) -> dict[str, Any]:
    """The map that `server.status` answers with; an embedded node gives the same."""
    return {
        "version": __version__,
        "node_id": node.node_id,
        "uptime_ms": node.uptime_ms,
        "durability": node.config.durability,
        "encrypted": True,
        "revision": node.revision,
        "index": node.index,
        "keys": node.keys,
        "connections": node.connections,
        "authentication": False,
        "tls": False,
        "health": health(node)[0],
    }


def health(node: Node) -> tuple[str, str]:
    """(state, reason): `ok`, `stopping`, or `failed` with what has failed."""
    if node.failed.done():
        return "failed", "the disk failed: nothing can be written any more"
    if node.stopping:
        return "stopping", "the node is shutting down"
    return "ok", ""
