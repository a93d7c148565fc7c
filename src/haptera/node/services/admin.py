"""The admin service (spec/protocol.md 7.3): users, roles, grants and tokens.

A change goes through the log, as every write does, and is durable and applied before its answer. The service asks
whether the requester may administer users at all. That it gives no more than it has is judged in the log
(`haptera.state.access_giving`).
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any, Final

import msgspec

from haptera.errors import Code, Failure, failure
from haptera.key_rules import size_refusal
from haptera.node.audit.event import NODE
from haptera.node.audit.recorded_administration import RecordedAdministration, administered
from haptera.node.commands import ANONYMOUS, Envelope
from haptera.node.services.admin_methods import ADMIN_METHODS, ADMIN_SERVICE, target_of
from haptera.node.services.private_links import is_private
from haptera.node.services.submitters import submitter_of
from haptera.node.services.write_requests import digest_prefix
from haptera.peer import Request, Service
from haptera.state import Read, Replayed, validate
from haptera.wire import Tag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haptera.node.commands import Commands, Submitter
    from haptera.node.metrics import Metrics
    from haptera.node.node import Node
    from haptera.node.services.recorded_requests import RecordedRequests
    from haptera.peer import Peer
    from haptera.state import Result, Write

#: Bytes of an argument: the longest name with as many roles as a user may have is a third of that.
ARGUMENT_SIZE_MAX: Final = 64 * 1024

#: The mechanisms that have proved a password: a user that came in by one may give itself another password.
_BY_PASSWORD: Final = frozenset({"SCRAM-SHA-256", "PLAIN"})

_REPLAYED: Final = bytes((Tag.REPLAYED, 0))
_PREFIXES: Final = {name: digest_prefix(ADMIN_SERVICE, name) for name in ADMIN_METHODS}

_encode: Final = msgspec.msgpack.Encoder().encode


class AdminService(Service):
    """Answers reads at once, and changes when they are durable and applied."""

    name = ADMIN_SERVICE

    def __init__(self, commands: Commands, metrics: Metrics, recorded: RecordedRequests) -> None:
        self._commands = commands
        self._requests = metrics.requests(self.name, ADMIN_METHODS)
        self._recorded = recorded

    def methods(self) -> Sequence[str]:
        """The methods' names, for `session.describe`."""
        return tuple(ADMIN_METHODS)

    def handle(self, requests: list[Request]) -> None:
        """Answer each by itself: they are few."""
        for request in requests:
            argument = ADMIN_METHODS.get(request.method)
            if argument is None:
                request.fail(failure(Code.UNKNOWN_METHOD, {"service": self.name, "method": request.method}))
                continue
            self._requests[request.method] += 1
            if len(request.payload) > ARGUMENT_SIZE_MAX:
                request.fail(size_refusal(ARGUMENT_SIZE_MAX))
                continue
            op = argument.decode(request.payload)
            if isinstance(op, Failure):
                request.fail(op)
            elif isinstance(op, Read):
                self._read(request, op)
            else:
                self._change(request, op)

    def _read(self, request: Request, op: Read) -> None:
        submitter = submitter_of(request.peer)
        refused = submitter.lacks("user_admin")
        if refused is None:
            self._commands.submit(submitter, [Envelope(op)], lambda results: _answer(request, results[0]))
        else:
            self._recorded.fail(request, refused)

    def _change(self, request: Request, op: Any) -> None:
        refused = _refused(request.peer, submitter_of(request.peer), op) or validate(op)
        if refused is not None:
            self._recorded.fail(request, refused)
        else:
            target, detail = target_of(op)
            self._recorded.begin(request, lambda: self._make(request, op), target, detail)

    def _make(self, request: Request, op: Any) -> None:
        def done(results: list[Result]) -> None:
            request.on_cancel = None
            result, entries = _opened(results[0])
            if isinstance(result, Failure):
                self._recorded.fail(request, result, entries)
            else:
                self._recorded.respond(request, _encode(result), entries)

        submission = self._commands.submit(submitter_of(request.peer), [_command(request, op)], done)
        if submission.waiting:

            def give_up() -> None:
                self._commands.drop(submission, 0)

            request.on_cancel = give_up


async def administer(node: Node, method: str, op: Write) -> Result:
    """Change users, roles, grants or tokens for an embedded caller. A change goes on where the caller is cancelled."""
    invalid = validate(op)
    if invalid is not None:
        return invalid
    changed: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

    def done(results: list[Result]) -> None:
        if not changed.done():
            changed.set_result(results[0])

    def make() -> asyncio.Future[Result]:
        node.commands.submit(ANONYMOUS, [Envelope(op)], done)
        return changed

    target, detail = target_of(op)
    return await administered(
        RecordedAdministration(node.audit, f"{ADMIN_SERVICE}.{method}", NODE, target, detail), make
    )


def _refused(peer: Peer, submitter: Submitter, op: Any) -> Failure | None:
    """Why this connection may not ask for a change, or None. The log judges the change itself."""
    verifier = getattr(op, "verifier", None)
    if verifier is not None and not is_private(peer):
        details = {"field": "verifier", "reason": "it travels inside TLS, a Unix socket or one machine alone"}
        return failure(Code.INVALID_ARGUMENT, details, outcome="not_applied")
    identity = peer.identity
    if identity is not None and identity.mechanism in _BY_PASSWORD and verifier is not None:
        own = type(op).__struct_config__.tag == "access.set_verifier" and op.user == identity.user
        if own:
            return None
    return submitter.lacks("user_admin")


def _command(request: Request, op: Any) -> Envelope:
    request_id = request.request_id if "idempotency" in request.peer.capabilities else None
    if request_id is None:
        return Envelope(op)
    digest = hashlib.sha256(_PREFIXES[request.method] + request.payload).digest()
    return Envelope(op, request_id, digest, request.resent)


def _opened(result: Result) -> tuple[Result, bytes]:
    """A result, and the entries of its answer: those of one that was given before say so."""
    return (result.result, _REPLAYED) if isinstance(result, Replayed) else (result, b"")


def _answer(request: Request, result: Result) -> None:
    if isinstance(result, Failure):
        request.fail(result)
        return
    payload = _encode(result)
    limit = request.peer.max_message
    if len(payload) > limit:
        request.fail(size_refusal(limit))
    else:
        request.respond(payload)
