"""The server service (spec/protocol.md 7.2): a node's status, health and metrics, and a snapshot on request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from haptera.errors import Code, Failure, failure
from haptera.node.aging import crowded
from haptera.node.services.arguments import Argument
from haptera.node.services.backup_stream import BackupStreams
from haptera.node.services.metrics_stream import Watchers, WatchMetrics
from haptera.node.services.rotate_key import KeyRotations, RotateKey
from haptera.peer import Request, Service, has_no_argument
from haptera.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from haptera.node.memory_limit import MemoryLimit
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
            "health": lambda: health(node),
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
        "tls": False,
        "health": health(node)[0],
    }


def health(node: Node) -> tuple[str, str]:
    """(state, reason): `ok`, `full` while changes are refused for want of room, `stopping`, or `failed` with its cause.

    `ok` has a reason too while the remembered answers are many: changes are refused when there are too many.
    """
    if node.failed.done():
        if node.abandoned:
            return "failed", "a stored change could not be applied: nothing is read or written any more"
        return "failed", "the disk failed: nothing can be written any more"
    if node.stopping:
        return "stopping", "the node is shutting down"
    if node.full:
        return "full", "the disk is full: writes are refused, reads go on"
    memory = node.memory
    if memory.full:
        return "full", f"{_of(memory)}: changes that add to it are refused, deletes go on"
    answers, answers_max = node.remembered_answers
    if answers >= answers_max:
        return "full", f"{answers} answers are remembered: changes are refused until some are forgotten"
    if node.archiver is not None and node.archiver.trouble:
        return "ok", f"{node.archiver.lag} segments are not archived: {node.archiver.trouble}"
    if crowded(answers):
        return "ok", f"{answers} of {answers_max} answers are remembered: each connection may have few"
    if memory.high:
        return "ok", f"{_of(memory)}: changes that add to it are refused when there is no more"
    return "ok", ""


def _of(memory: MemoryLimit) -> str:
    return f"keys and values take {memory.size} of {memory.limit} bytes of memory"
