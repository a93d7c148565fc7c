"""``server.maintenance`` (spec/protocol.md 7.2): the store is closed to changes, and opened again."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from haptera.errors import Code, Failure, failure
from haptera.node.commands import ANONYMOUS, Envelope
from haptera.node.services.method_arguments import Argument
from haptera.node.services.submitters import submitter_of
from haptera.state import node_operations

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from haptera.node.commands import Submitter
    from haptera.node.node import Node
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


class MaintenanceRequests:
    """Answers the requests to begin, end or tell maintenance."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def add(self, request: Request) -> None:
        """Answer a request: at once, or when the change is durable."""
        asked = _ARGUMENT.decode(request.payload)
        _maintain(self._node, submitter_of(request.peer), asked, partial(_respond, request))


async def maintain(node: Node, argument: Sequence[Any]) -> Answer:
    """Begin, end or tell maintenance for an embedded caller. A change goes on where the caller is cancelled."""
    answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def answer(found: Answer) -> None:
        if not answered.done():
            answered.set_result(found)

    _maintain(node, ANONYMOUS, _ARGUMENT.convert(argument), answer)
    return await answered


def _maintain(
    node: Node, submitter: Submitter, asked: MaintenanceAsked | Failure, answer: Callable[[Answer], None]
) -> None:
    op = asked if isinstance(asked, Failure) else _change(asked)
    if isinstance(op, Failure):
        answer(op)
        return
    if op is None:
        answer(_told(node))
        return

    def done(results: list[Result]) -> None:
        [result] = results
        if isinstance(result, Failure):
            answer(result)
            return
        if result == (True,):
            _log(op, submitter.user)
        answer(_told(node))

    node.commands.submit(submitter, [Envelope(op)], done)


def _respond(request: Request, answer: Answer) -> None:
    if isinstance(answer, Failure):
        request.fail(answer)
    else:
        request.respond(msgspec.msgpack.encode(answer))


def _change(asked: MaintenanceAsked) -> node_operations.SetMaintenance | Failure | None:
    """Return the change that is asked for, or None where none is."""
    if asked.on is not None:
        return node_operations.SetMaintenance(asked.on, asked.reason or "")
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
