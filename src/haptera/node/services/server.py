"""The server service (spec/protocol.md 7.2): a node's status, health and metrics, and a snapshot on request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from haptera.errors import Code, Failure, failure
from haptera.node.health import health
from haptera.node.services.backup_stream import BackupStreams
from haptera.node.services.examinations import Examinations
from haptera.node.services.maintenance import MaintenanceRequests
from haptera.node.services.method_arguments import Argument
from haptera.node.services.metrics_stream import Watchers, WatchMetrics
from haptera.node.services.recorded_requests import RecordedRequests
from haptera.node.services.rotate_key import KeyRotations, RotateKey
from haptera.node.services.submitters import submitter_of
from haptera.peer import Request, Service, has_no_argument
from haptera.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from haptera.access_rules import NodePermission
    from haptera.node.commands import Submitter
    from haptera.node.node import Node

#: The capability that a connection needs for `watch_metrics` (spec/protocol.md 4.1).
_CAPABILITY = "server_metrics"

#: The permission that each method needs, where it needs one.
NEEDS: Final[Mapping[str, NodePermission]] = {
    "backup": "backup",
    "doctor": "admin",
    "maintenance": "admin",
    "metrics": "metrics",
    "rotate_key": "admin",
    "snapshot": "admin",
    "watch_metrics": "metrics",
}

#: The fields of the status that tell of the data and the connections of all users.
MEASURED: Final = frozenset(
    {
        "connections",
        "index",
        "keys",
        "memory",
        "memory_max",
        "remembered_answers",
        "snapshot_index",
        "snapshot_memory",
    }
)

_WATCH_METRICS = Argument(WatchMetrics)
_ROTATE_KEY = Argument(RotateKey)


class ServerService(Service):
    """Answers `status`, `health` and `metrics` of one node at once, `backup` and `watch_metrics` with items, and the
    other methods when they are done.
    """

    name = "server"

    def __init__(self, node: Node, recorded: RecordedRequests | None = None) -> None:
        recorded = recorded or RecordedRequests(node.audit)
        self._recorded = recorded
        self._answers: dict[str, Callable[[Submitter], Any]] = {
            "status": lambda submitter: status_for(submitter, node),
            "health": lambda _: health(node)[:2],
            "metrics": lambda _: node.metrics.values(),
        }
        self._longer: dict[str, Callable[[Request], None]] = {
            "backup": self._back_up,
            "doctor": self._examine,
            "maintenance": MaintenanceRequests(node, recorded).add,
            "rotate_key": self._rotate,
            "snapshot": self._snapshot,
            "watch_metrics": self._watch,
        }
        self._node = node
        self._requests = node.metrics.requests(self.name, self.methods())
        self._watchers = Watchers(node.metrics.values, node.clock_ms)
        self._backups = BackupStreams(node.backups, recorded)
        self._rotations = KeyRotations(node.key_rotation, recorded)
        self._examinations = Examinations(node)

    def methods(self) -> Sequence[str]:
        """The methods' names, for `session.describe`."""
        return (*self._answers, *self._longer)

    def handle(self, requests: list[Request]) -> None:
        """Answer each, most of them at once."""
        submitter = submitter_of(requests[0].peer)
        for request in requests:
            needed = NEEDS.get(request.method)
            refused = None if needed is None else submitter.lacks(needed)
            if refused is not None:
                self._requests[request.method] += 1
                self._recorded.fail(request, refused)
                continue
            answer = self._answers.get(request.method)
            if answer is not None:
                self._requests[request.method] += 1
                if has_no_argument(request):
                    request.respond(msgspec.msgpack.encode(answer(submitter)))
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
        self._examinations.stop()

    def _back_up(self, request: Request) -> None:
        if has_no_argument(request):
            submitter = submitter_of(request.peer)
            self._recorded.begin(request, lambda: self._backups.add(request, lambda: submitter.lacks("backup")))

    def _examine(self, request: Request) -> None:
        if has_no_argument(request):
            self._examinations.add(request)

    def _snapshot(self, request: Request) -> None:
        if has_no_argument(request):
            self._recorded.begin(request, lambda: self._make_snapshot(request))

    def _make_snapshot(self, request: Request) -> None:
        answer = self._node.snapshots.request()

        def give_up() -> None:
            answer.cancel()

        request.on_cancel = give_up

        def answered(_: object) -> None:
            if answer.cancelled():
                self._recorded.fail(request, failure(Code.CANCELLED, outcome="not_applied"))
                return
            result = answer.result()
            if isinstance(result, Failure):
                self._recorded.fail(request, result)
            else:
                self._recorded.respond(request, msgspec.msgpack.encode(result))

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
            submitter = submitter_of(request.peer)
            self._watchers.add(request, asked.interval_ms, lambda: submitter.lacks("metrics"))

    def _rotate(self, request: Request) -> None:
        asked = _ROTATE_KEY.decode(request.payload)
        if isinstance(asked, Failure):
            request.fail(asked)
        else:
            target = "master key" if asked.master else "data key"
            self._recorded.begin(request, lambda: self._rotations.add(request, asked), target)


def status_for(submitter: Submitter, node: Node) -> dict[str, Any]:
    """The status as a submitter may see it: the sizes of all that others keep belong to the metrics."""
    found = status(node)
    if submitter.lacks("metrics") is None:
        return found
    return {name: value for name, value in found.items() if name not in MEASURED}


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
        "authentication": bool(node.config.listen) and not node.config.no_auth,
        "tls": bool(node.tls),
        "maintenance": node.maintenance is not None,
        "audit_head": str(node.audit.head),
        **certificate,
        "health": found.state,
        **{name: value for name, value in more.items() if value},
    }
