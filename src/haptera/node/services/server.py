"""The server service (spec/protocol.md 7.2): a node's status, health and metrics, and a snapshot on request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from haptera.errors import Code, Failure, failure
from haptera.node.health import health
from haptera.node.services.backup_stream import BackupStreams
from haptera.node.services.method_arguments import Argument
from haptera.node.services.metrics_stream import Watchers, WatchMetrics
from haptera.node.services.rotate_key import KeyRotations, RotateKey
from haptera.peer import Request, Service, has_no_argument
from haptera.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from haptera.node.node import Node

#: The capability that a connection needs for `watch_metrics` (spec/protocol.md 4.1).
_CAPABILITY = "server_metrics"

_WATCH_METRICS = Argument(WatchMetrics)
_ROTATE_KEY = Argument(RotateKey)


class ServerService(Service):
    """Answers `status`, `health` and `metrics` of one node at once, `snapshot` and `rotate_key` when that is done, and
    `backup` and `watch_metrics` with items.
    """

    name = "server"

    def __init__(self, node: Node) -> None:
        self._answers: dict[str, Callable[[], Any]] = {
            "status": lambda: status(node),
            "health": lambda: health(node)[:2],
            "metrics": node.metrics.values,
        }
        self._longer: dict[str, Callable[[Request], None]] = {
            "backup": self._back_up,
            "rotate_key": self._rotate,
            "snapshot": self._snapshot,
            "watch_metrics": self._watch,
        }
        self._node = node
        self._requests = node.metrics.requests(self.name, self.methods())
        self._watchers = Watchers(node.metrics.values, node.clock_ms)
        self._backups = BackupStreams(node.backups)
        self._rotations = KeyRotations(node.key_rotation)

    def methods(self) -> Sequence[str]:
        """The methods' names, for `session.describe`."""
        return (*self._answers, *self._longer)

    def handle(self, requests: list[Request]) -> None:
        """Answer each, most of them at once."""
        for request in requests:
            answer = self._answers.get(request.method)
            if answer is not None:
                self._requests[request.method] += 1
                if has_no_argument(request):
                    request.respond(msgspec.msgpack.encode(answer()))
            elif (handle := self._longer.get(request.method)) is not None:
                self._requests[request.method] += 1
                handle(request)
            else:
                request.fail(failure(Code.UNKNOWN_METHOD, {"service": self.name, "method": request.method}))

    def stop(self) -> None:
        """End the requests that may take longer than a node has to stop: those for a snapshot, a backup, another key,
        and metrics.
        """
        self._node.snapshots.stop()
        self._watchers.stop()
        self._backups.stop()
        self._rotations.stop()

    def _back_up(self, request: Request) -> None:
        if has_no_argument(request):
            self._backups.add(request)

    def _snapshot(self, request: Request) -> None:
        if not has_no_argument(request):
            return
        answer = self._node.snapshots.request()

        def give_up() -> None:
            answer.cancel()

        request.on_cancel = give_up

        def answered(_: object) -> None:
            if answer.cancelled():
                request.fail(failure(Code.CANCELLED, outcome="not_applied"))
                return
            result = answer.result()
            if isinstance(result, Failure):
                request.fail(result)
            else:
                request.respond(msgspec.msgpack.encode(result))

        answer.add_done_callback(answered)

    def _watch(self, request: Request) -> None:
        if _CAPABILITY not in request.peer.capabilities:
            details = {"service": self.name, "method": request.method, "capability": _CAPABILITY}
            request.fail(failure(Code.UNKNOWN_METHOD, details))
            return
        asked = _WATCH_METRICS.decode(request.payload)
        if isinstance(asked, Failure):
            request.fail(asked)
        else:
            self._watchers.add(request, asked.interval_ms)

    def _rotate(self, request: Request) -> None:
        asked = _ROTATE_KEY.decode(request.payload)
        if isinstance(asked, Failure):
            request.fail(asked)
        else:
            self._rotations.add(request, asked)


def status(node: Node) -> dict[str, Any]:
    """The map that `server.status` answers with; an embedded node gives the same."""
    found = health(node)
    more = {"health_reason": found.reason, "health_help": found.help, "health_since": found.since_ms}
    ends_at = node.certificate_ends_at
    certificate = {} if ends_at is None else {"certificate_ends_at": ends_at * 1000}
    return {
        "version": __version__,
        "node_id": node.node_id,
        "uptime_ms": node.uptime_ms,
        "durability": node.config.durability,
        "encrypted": True,
        "revision": node.revision,
        "index": node.index,
        "keys": node.keys,
        "memory": node.memory.size,
        "memory_max": node.memory.limit,
        "snapshot_index": node.snapshots.index,
        "snapshot_memory": node.snapshots.needed_bytes,
        "remembered_answers": node.remembered_answers[0],
        "connections": node.connections,
        "authentication": node.config.signing_key_file is not None,
        "tls": bool(node.tls),
        **certificate,
        "health": found.state,
        **{name: value for name, value in more.items() if value},
    }
