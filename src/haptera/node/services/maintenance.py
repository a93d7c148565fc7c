"""``server.maintenance`` (spec/protocol.md 7.2): the store is closed to changes, and opened again."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

import msgspec

from haptera.errors import Code, Failure, failure
from haptera.node.audit.recorded_administration import RecordedAdministration, administered
from haptera.node.commands import ANONYMOUS, Envelope
from haptera.node.services.method_arguments import Argument
from haptera.node.services.submitters import submitter_of
from haptera.state import node_operations, validate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from haptera.node.commands import Submitter
    from haptera.node.node import Node
    from haptera.node.services.recorded_requests import RecordedRequests
    from haptera.peer import Request
    from haptera.state import Result

_logger = logging.getLogger(__name__)

#: The answer to a request: the map of the method's result, or a failure.
Answer = dict[str, Any] | Failure


class MaintenanceAsked(msgspec.Struct, frozen=True):
    """The argument of the method: without ``on`` it asks whether there is maintenance. A reason is given with ``on``
    that is true, and with no other.
    """

    on: bool | None = None
    reason: str | None = None


_ARGUMENT: Final = Argument(MaintenanceAsked)
_METHOD: Final = "server.maintenance"


class MaintenanceRequests:
    """Answers the requests to begin, end or tell maintenance."""

    def __init__(self, node: Node, recorded: RecordedRequests) -> None:
        self._node = node
        self._recorded = recorded

    def add(self, request: Request) -> None:
        """Answer a request: at once, or when the change is durable."""
        asked = _ARGUMENT.decode(request.payload)
        op = asked if isinstance(asked, Failure) else _change(asked)
        if isinstance(op, Failure):
            request.fail(op)
        elif op is None:
            request.respond(msgspec.msgpack.encode(_told(self._node)))
        else:
            change = op
            self._recorded.begin(request, lambda: self._make(request, change), detail=_detail(op))

    def _make(self, request: Request, op: node_operations.SetMaintenance) -> None:
        def answer(found: Answer) -> None:
            if isinstance(found, Failure):
                self._recorded.fail(request, found)
            else:
                self._recorded.respond(request, msgspec.msgpack.encode(found))

        _maintain(self._node, submitter_of(request.peer), op, answer)


async def maintain(node: Node, argument: Sequence[Any]) -> Answer:
    """Begin, end or tell maintenance for an embedded caller. A change goes on where the caller is cancelled."""
    asked = _ARGUMENT.convert(argument)
    op = asked if isinstance(asked, Failure) else _change(asked)
    if isinstance(op, Failure):
        return op
    if op is None:
        return _told(node)
    change, answered = op, asyncio.get_running_loop().create_future()

    def answer(found: Answer) -> None:
        if not answered.done():
            answered.set_result(found)

    def make() -> asyncio.Future[Answer]:
        _maintain(node, ANONYMOUS, change, answer)
        return answered

    return await administered(RecordedAdministration(node.audit, _METHOD, detail=_detail(op)), make)


def _maintain(
    node: Node, submitter: Submitter, op: node_operations.SetMaintenance, answer: Callable[[Answer], None]
) -> None:
    def done(results: list[Result]) -> None:
        [result] = results
        if isinstance(result, Failure):
            answer(result)
            return
        if result == (True,):
            _log(op, submitter.user)
        answer(_told(node))

    node.commands.submit(submitter, [Envelope(op)], done)


def _detail(op: node_operations.SetMaintenance) -> dict[str, str | int]:
    return {"on": int(op.on), "reason": op.reason} if op.on else {"on": 0}


def _change(asked: MaintenanceAsked) -> node_operations.SetMaintenance | Failure | None:
    """Return the change that is asked for, or None where none is."""
    if asked.on is not None:
        op = node_operations.SetMaintenance(asked.on, asked.reason or "")
        return validate(op) or op
    if asked.reason is not None:
        return failure(Code.INVALID_ARGUMENT, {"field": "reason", "reason": "given without on"}, outcome="not_applied")
    return None


def _log(change: node_operations.SetMaintenance, user: str) -> None:
    if change.on:
        _logger.info("maintenance_began", extra={"user": user, "reason": change.reason})
    else:
        _logger.info("maintenance_ended", extra={"user": user})


def _told(node: Node) -> dict[str, Any]:
    found = node.maintenance
    if found is None:
        return {"on": False, "reason": "", "since_ms": None}
    return {"on": True, "reason": found.reason, "since_ms": found.since_ms}
