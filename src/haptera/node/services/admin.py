"""The admin service (spec/protocol.md 7.3): users, roles, grants and tokens.

A change goes through the log, as every write does, and is durable and applied before its answer. The service asks
whether the requester may administer users at all. That it gives no more than it has is judged in the log
(`haptera.state.access_giving`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from haptera.errors import Code, Failure, failure
from haptera.key_rules import size_refusal
from haptera.node.commands import Envelope
from haptera.node.services.admin_methods import ADMIN_METHODS, ADMIN_SERVICE, target_of
from haptera.node.services.private_links import is_private
from haptera.node.services.submitters import submitter_of
from haptera.node.services.write_requests import digest_prefix
from haptera.node.write_batch import DROPPED
from haptera.peer import Request, Service
from haptera.state import Read, Replayed
from haptera.wire import Tag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haptera.node.commands import Commands, Submitter
    from haptera.node.metrics import Metrics
    from haptera.peer import Peer
    from haptera.state import Result

#: Told of each change that was asked for, before its answer: the submitter, its connection, the method, the fields
#: that are no secret, and why it was refused, or None.
OnChange = Callable[["Submitter", "Peer", str, dict[str, Any], Failure | None], None]

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

    def __init__(self, commands: Commands, metrics: Metrics, on_change: OnChange | None = None) -> None:
        self._commands = commands
        self._requests = metrics.requests(self.name, ADMIN_METHODS)
        self._on_change = on_change

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
            request.fail(refused)

    def _change(self, request: Request, op: Any) -> None:
        submitter = submitter_of(request.peer)

        def done(results: list[Result]) -> None:
            result = results[0]
            if self._on_change is not None and result is not DROPPED:
                refused = result if isinstance(result, Failure) else None
                self._on_change(submitter, request.peer, request.method, target_of(op), refused)
            _answer(request, result)

        refused = _refused(request.peer, submitter, op)
        if refused is not None:
            done([refused])
            return
        command = _command(request, op)
        submission = self._commands.submit(submitter, [command], done)
        if submission.waiting:

            def give_up() -> None:
                self._commands.drop(submission, 0)

            request.on_cancel = give_up


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


def _answer(request: Request, result: Result) -> None:
    entries = b""
    if isinstance(result, Replayed):
        result, entries = result.result, _REPLAYED
    if isinstance(result, Failure):
        request.fail(result, entries)
        return
    payload = _encode(result)
    limit = request.peer.max_message
    if len(payload) > limit:
        request.fail(size_refusal(limit))
    else:
        request.respond(payload, entries)
