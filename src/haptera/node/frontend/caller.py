"""The other side of one connection of a dialect: its identity, and its way to the commands of the node."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from haptera.errors import Failure
from haptera.node.audit.event import AuditCaller
from haptera.node.commands import ANONYMOUS, STRANGER
from haptera.node.frontend.login import log_in
from haptera.node.scans import page_steps
from haptera.peer import ANYONE, EXTERNAL, Identity

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from haptera.connection import Budget
    from haptera.node.commands import Commands, Envelope, Submission, Submitter, operations
    from haptera.node.frontend.facts import Facts
    from haptera.node.frontend.frontend_connection import FrontendConnection
    from haptera.node.frontend.gateway import Gateway
    from haptera.node.scans import Cursor
    from haptera.node.watches import Feed, Follower
    from haptera.peer import Credentials
    from haptera.state import Page, Result

_SESSION_SIZE: Final = 16


class DialectCaller:
    """One caller. Its commands are judged, counted, limited and recorded as those of each other caller are.

    ``remote`` is the address of the other end, ``credentials`` the process there at a Unix socket, ``number`` that of
    the connection within the node, ``session`` its random name of 16 bytes in the audit log, and ``attributes`` a place
    for the parts of a node to keep things in. ``tls`` says whether the connection is inside TLS, and
    ``certificate_names`` are those of a verified certificate.
    """

    def __init__(
        self,
        gateway: Gateway,
        connection: FrontendConnection,
        number: int,
        remote: str,
        credentials: Credentials | None,
    ) -> None:
        self.remote = remote
        self.credentials = credentials
        self.number = number
        self.tls = False
        self.certificate_names: tuple[str, ...] = ()
        self.session: bytes = os.urandom(_SESSION_SIZE)
        self.attributes: dict[str, Any] = {}
        #: Commands that it has sent.
        self.requests_received: int = 0
        self._gateway = gateway
        self._connection = connection
        self._loop = loop = connection.loop
        self._bucket = gateway.bucket(loop.time())
        self._on_leave: list[Callable[[], None]] = []
        self._identity: Identity | None = None
        self._submitter: Submitter = STRANGER
        self._audited = AuditCaller(self.session.hex(), remote)
        self._logging_in: set[asyncio.Future[Failure | None]] = set()

    # -- the identity -----------------------------------------------------------------------------------------------

    @property
    def identity(self) -> Identity | None:
        """The identity that it has proved, or that is implied; None before that."""
        return self._identity

    @identity.setter
    def identity(self, identity: Identity | None) -> None:
        self.leave()
        self._identity = identity
        user, mechanism = ("", "") if identity is None else (identity.user, identity.mechanism)
        self._audited = AuditCaller(self.session.hex(), self.remote, user, mechanism)
        if identity is None:
            self._submitter = STRANGER
        else:
            self._submitter = self._gateway.commands.submitter(user) if user else ANONYMOUS
            self._connection.established()

    @property
    def submitter(self) -> Submitter:
        """The submitter of its commands; one that may do nothing before its proof."""
        return self._submitter

    @property
    def needs_login(self) -> bool:
        """Whether it may do nothing before it has proved its identity."""
        return self._identity is None

    @property
    def asks_for_logins(self) -> bool:
        """Whether its listener has users at all: without them an attempt to log in has no meaning."""
        return self._gateway.authenticator is not None

    def come_in(self, *, signed: bool) -> None:
        """Take the identity that needs no further proof, if there is one: of the key by which each message is
        ``signed``, of a verified certificate or a process of this machine, or of anyone where no proof is asked for.
        """
        authenticator = self._gateway.authenticator
        if authenticator is None:
            self.identity = ANYONE
        elif signed:
            self.identity = identity = authenticator.identity_of(self)
            assert identity is not None, "a key stands for a user"
            authenticator.entered(self, identity)
        elif (name := authenticator.external(self)) is not None and authenticator.refuses(self, name) is None:
            self.identity = Identity(name, EXTERNAL)
            authenticator.ended(self, name, EXTERNAL, None)

    def fail_proof(self, reason: str) -> None:
        """Take note that a message is not ``signed`` by the key of the listener: a failed login of its address."""
        authenticator = self._gateway.authenticator
        identity = None if authenticator is None else authenticator.identity_of(self)
        if authenticator is not None and identity is not None:
            authenticator.ended(self, identity.user, identity.mechanism, reason)

    def authenticate(self, name: str, password: str) -> asyncio.Future[Failure | None]:
        """Log in as a user or a token. The future has None, or why it failed, and then the identity stays.

        Only where ``asks_for_logins``.
        """
        authenticator = self._gateway.authenticator
        assert authenticator is not None, "there are no users"
        task = self._loop.create_task(log_in(self, authenticator, self._loop, name, password))
        self._logging_in.add(task)
        task.add_done_callback(self._logging_in.discard)
        return task

    def on_close(self, callback: Callable[[], None]) -> None:
        """Have a function called once when the connection has ended, or has another identity."""
        self._on_leave.append(callback)

    def leave(self) -> None:
        """The connection has ended, or gets another identity."""
        callbacks, self._on_leave = self._on_leave, []
        for callback in callbacks:
            self._connection.guarded(callback)

    def share_budget(self, user: Budget) -> None:
        """Charge the bytes of the connection to a budget of its user too, until it has another identity or ends."""
        self._connection.share_budget(user)
        self.on_close(lambda: self._connection.share_budget(None))

    def end(self, reason: Failure, *, linger: bool) -> None:
        """End the connection at once, and say why in the words of its protocol."""
        self._connection.end(reason, linger=linger)

    async def send_away(self, reason: Failure, timeout: float) -> None:
        """End the connection when its commands are answered, ``timeout`` seconds later at most, and say why."""
        await self._connection.drain(timeout, reason)

    def gone(self) -> None:
        """The connection has ended."""
        for attempt in list(self._logging_in):
            attempt.cancel()
        self.leave()

    # -- commands ---------------------------------------------------------------------------------------------------

    @property
    def facts(self) -> Facts:
        """Facts about the node."""
        return self._gateway.facts

    @property
    def commands(self) -> Commands:
        """The command interface, for what needs no caller: `Commands.drop`, turns, the revision."""
        return self._gateway.commands

    def submit(self, commands: Sequence[Envelope], done: Callable[[list[Result]], None]) -> Submission:
        """Do the commands as `Commands.submit` does. Commands beyond the rates fail with 3008."""
        gateway = self._gateway
        done = partial(self._connection.guarded, done)
        self.requests_received += len(commands)
        if not gateway.has_rates:
            return gateway.commands.submit(self._submitter, commands, gateway.followed(self._audited, commands, done))
        admitted, refused = gateway.admits(self._bucket, self._submitter.user, len(commands), self._loop.time())
        if refused is not None:
            done = _with_refused(done, [refused] * (len(commands) - admitted))
            commands = commands[:admitted]
        return gateway.commands.submit(self._submitter, commands, gateway.followed(self._audited, commands, done))

    def read_one(self, op: operations.Read) -> Result:
        """The result of one read, now; 3008 beyond the rates."""
        gateway = self._gateway
        self.requests_received += 1
        if gateway.has_rates:
            _, refused = gateway.admits(self._bucket, self._submitter.user, 1, self._loop.time())
            if refused is not None:
                return refused
        return gateway.read_one(self._audited, self._submitter, op)

    def get_each(self, keys: Sequence[str]) -> list[Result]:
        """The result of a `Get` of each key, now. Keys beyond the rates fail with 3008."""
        gateway, count = self._gateway, len(keys)
        self.requests_received += count
        if not gateway.has_rates:
            return gateway.get_each(self._audited, self._submitter, keys)
        admitted, refused = gateway.admits(self._bucket, self._submitter.user, count, self._loop.time())
        results = gateway.get_each(self._audited, self._submitter, keys[:admitted])
        return results if refused is None else [*results, *[refused] * (count - admitted)]

    async def check(self, op: operations.SetMany | operations.DeleteMany) -> Envelope | Failure:
        """A command with a long list, checked in slices, for `submit`; or why it is refused."""
        return await self.commands.turns.run(self, self.commands.check_steps(self._submitter, op))

    async def open_scan(
        self, op: operations.OpenScan | operations.AsOf, on_expired: Callable[[], None] | None = None
    ) -> Cursor | Failure:
        """Open a scan as `Commands.open_scan` does."""
        begun = self._begin(op)
        cursor = await self.commands.open_scan(self._submitter, op, on_expired, self)
        self._end(op, cursor, begun)
        return cursor

    async def page(self, cursor: Cursor, max_bytes: int, max_rows: int) -> Page | Failure:
        """The next rows of a scan, as many as there is room for, looked for in slices."""
        return await self.commands.turns.run(self, page_steps(cursor, max_bytes, max_rows))

    async def count(self, op: operations.Count | operations.AsOf) -> int | Failure:
        """The number of keys of a range, as `Commands.count` finds it."""
        begun = self._begin(op)
        counted = await self.commands.count(self._submitter, op, self)
        self._end(op, counted, begun)
        return counted[0][0] if isinstance(counted, tuple) else counted

    async def read(
        self, op: operations.GetMany | operations.OpenHistory | operations.AsOf, limit: int
    ) -> tuple[Any, ...] | Failure:
        """The result of a read that `submit` does not answer at once, as `Commands.read_steps` finds it."""
        begun = self._begin(op)
        found = await self.commands.turns.run(self, self.commands.read_steps(self._submitter, op, limit))
        self._end(op, found, begun)
        return found[0] if isinstance(found, tuple) else found

    def watch(self, op: operations.OpenWatch, feed: Feed) -> Follower | Failure:
        """Open a watch as `Watches.open` does."""
        self._gateway.count(op)
        watch = self._gateway.watches.open(self._submitter, op, feed, self)
        self._gateway.ended(self._audited, op, watch if isinstance(watch, Failure) else None, None)
        return watch

    def close_watch(self, watch: Follower, reason: Failure) -> None:
        """End a watch. Nothing happens if it has ended."""
        self._gateway.watches.close(watch, reason)

    def _begin(self, op: operations.Operation) -> float:
        self._gateway.count(op)
        return time.perf_counter()

    def _end(self, op: operations.Operation, result: object, begun: float) -> None:
        reason = result if isinstance(result, Failure) else None
        self._gateway.ended(self._audited, op, reason, time.perf_counter() - begun)


def _with_refused(done: Callable[[list[Result]], None], refused: list[Failure]) -> Callable[[list[Result]], None]:
    """Hand on the results of some commands, with the failures of the ones behind them."""
    return lambda results: done([*results, *refused])
