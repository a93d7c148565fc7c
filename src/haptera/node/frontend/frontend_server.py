"""A listener of a dialect and its connections (spec/protocol.md, section 8)."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from haptera.connection import AUTHENTICATION_TIMEOUT_S
from haptera.errors import Code, ConfigurationError, RemoteProtocolError
from haptera.node.frontend.frontend_connection import FrontendConnection
from haptera.peer import EventLog, judge_dialler, refusal_of_frame
from haptera.transport import (
    TLS_LOOK_S,
    TLS_OPTIONS,
    Foreign,
    Pool,
    TlsKeeper,
    TlsTransport,
    check_tls_option,
    open_listener,
    read_tls_files,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from haptera.connection import Budget
    from haptera.errors import Failure
    from haptera.node.config import NodeConfig
    from haptera.node.frontend.dialect import Dialect, DialectSession
    from haptera.node.frontend.gateway import Gateway
    from haptera.transport import Address, Listener, TlsFiles


def read_dialect_options(dialect: Dialect, address: Address) -> tuple[Any, TlsFiles | None]:
    """Read the options in the URL of a dialect's listener: the dialect's own settings, and the files of TLS.

    Raises ConfigurationError for an option that is not known, and for a value that it may not have.
    """
    if address.user is not None:
        raise ConfigurationError(f"{address} has a user, and a listener has none")
    for name in address.options:
        if name in TLS_OPTIONS:
            check_tls_option(address, name, listening=True)
        elif name not in dialect.options:
            raise ConfigurationError(f"{address}: the option {name!r} is not known to this version")
    # The clients of other protocols name none of them in the handshake of TLS.
    tls = read_tls_files(address, None, listening=True) if address.tls else None
    return dialect.settings(address), tls


class FrontendServer:
    """A listener of a dialect and the connections that came by it, with the bounds of a `haptera.peer.Server`.

    ``on_connection`` takes a connection into the counts of the node, and returns what is to be called when it is gone.
    """

    def __init__(
        self,
        dialect: Dialect,
        address: Address,
        gateway: Gateway,
        config: NodeConfig,
        budget: Budget,
        *,
        max_connections: int,
        on_connection: Callable[[FrontendConnection], Callable[[], None] | None],
    ) -> None:
        self._settings, files = read_dialect_options(dialect, address)
        self._dialect = dialect
        #: The name of its protocol, as it is written in texts.
        self.protocol: str = dialect.protocol.upper()
        self._address = address
        self._on_connection = on_connection
        self._on_gone: dict[FrontendConnection, Callable[[], None]] = {}
        self._listener: Listener | None = None
        self._look: asyncio.TimerHandle | None = None
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.gateway = gateway
        self.budget = budget
        #: Whether a key proves each message.
        self.signed: bool = dialect.is_signed(self._settings)
        self.tls: TlsKeeper | None = None if files is None else TlsKeeper(files)
        self.tls_failures: int = 0
        self.handshake_timeout_s: float = config.handshake_timeout
        self.authentication_timeout_s = AUTHENTICATION_TIMEOUT_S
        self.message_timeout_s: float = config.message_timeout
        self.write_timeout_s: float = config.write_timeout
        self._pool: Pool[FrontendConnection] = Pool(
            self._refuse,
            max_connections=max_connections,
            max_half_open=config.max_half_open,
            has_spoken=lambda connection: connection.has_spoken,
        )
        self.log: EventLog = EventLog(str(address))

    async def start(self, *, mode: int, group: str | None) -> None:
        """Listen. Raises ConfigurationError."""
        accept = self._accept if self.tls is None else self._accept_tls
        self._listener = await open_listener(self._address, mode=mode, group=group, accept=accept)
        await self._listener.start()
        if self.tls is not None:
            self._look = self.loop.call_later(TLS_LOOK_S, self._look_at_files)

    @property
    def url(self) -> str:
        """Where it listens, with the real port."""
        assert self._listener is not None, "it is not started"
        return self._listener.url

    @property
    def connections(self) -> list[FrontendConnection]:
        """The connections that are open, in the order in which they came."""
        return list(self._pool.connections)

    @property
    def half_open(self) -> int:
        """How many connections have not proved the identity that is asked for."""
        return self._pool.half_open

    @property
    def refused(self) -> int:
        """How many connections were refused or dropped because there were too many."""
        return self._pool.refused

    def reload_certificates(self) -> bool:
        """Read the files of TLS again, and return whether they can be used. The log says what is wrong with them."""
        return self.tls is None or self.tls.reload(time.time())

    def _look_at_files(self) -> None:
        assert self.tls is not None
        self._look = self.loop.call_later(TLS_LOOK_S, self._look_at_files)
        self.tls.look(time.time())

    def _accept(self) -> asyncio.Protocol:
        return FrontendConnection(self)

    def _accept_tls(self) -> asyncio.Protocol:
        assert self.tls is not None
        return TlsTransport(self._accept, self.tls.current, self._judge, on_failure=self._tls_failed)

    def _judge(self, first: bytes) -> Foreign:
        """Judge bytes that are no TLS. A dialler of Haptera reads which protocol this is."""
        foreign = judge_dialler(first)
        if not foreign.answer:
            return foreign
        told = f"this address speaks {self.protocol} with TLS, not Haptera"
        return foreign._replace(answer=refusal_of_frame(told))

    def _tls_failed(self) -> None:
        self.tls_failures += 1

    # -- for the connections ----------------------------------------------------------------------------------------

    def next_number(self) -> int:
        """The number of a new connection within the node."""
        return self.gateway.facts.next_number()

    def make_session(self, connection: FrontendConnection) -> DialectSession:
        """Make the session of a new connection."""
        return self._dialect.session(connection, self._settings)

    def opened(self, connection: FrontendConnection) -> None:
        """A connection was accepted: take it, or refuse it."""
        if not self._pool.admit(connection):
            return
        on_gone = self._on_connection(connection)
        if on_gone is not None:
            self._on_gone[connection] = on_gone

    def established(self, connection: FrontendConnection) -> None:
        """A connection is half-open no longer."""
        self._pool.established(connection)

    def ended(self, connection: FrontendConnection, reason: Failure) -> None:
        """The node ends a connection for a reason of its own, or for a fault of the other side."""
        fields = {"remote": connection.caller.remote, "connection": connection.caller.session.hex()}
        self.log.write(logging.INFO, "connection_ended", lambda: {**fields, "code": reason.code, "reason": reason.name})

    def lost(self, connection: FrontendConnection) -> None:
        """A connection is gone."""
        self._pool.lost(connection)
        on_gone = self._on_gone.pop(connection, None)
        if on_gone is not None:
            on_gone()

    def _refuse(self, connection: FrontendConnection, limit: int | None, /, *, linger: bool) -> None:
        if limit is None:
            reason = RemoteProtocolError(Code.GOING_AWAY).failure("not_applied")
        else:
            reason = RemoteProtocolError(Code.TOO_MANY_CONNECTIONS, details={"limit": limit}).failure("not_applied")
        connection.end(reason, linger=linger)

    # -- the end ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Take no more connections; the open ones go on."""
        if self._listener is not None:
            self._listener.close()
        self._pool.close()
        if self._look is not None:
            self._look.cancel()
            self._look = None

    async def drain(self, timeout: float) -> None:
        """Take no more connections and commands, and end the connections when the ones under way are answered."""
        if self._listener is None or self._listener.disowned:
            return
        self.close()
        await self._listener.wait_closed()
        reason = RemoteProtocolError(Code.GOING_AWAY).failure("not_applied")
        every = [*self._pool.connections, *self._pool.leaving]
        await asyncio.gather(*(connection.drain(timeout, reason) for connection in every))
        self.log.settle()

    async def aclose(self) -> None:
        """Take no more connections and close the open ones."""
        if self._listener is None or self._listener.disowned:
            return
        self.close()
        await self._listener.wait_closed()
        every = [*self._pool.connections, *self._pool.leaving]
        for connection in every:
            connection.close()
        reason = RemoteProtocolError(Code.GOING_AWAY).failure("not_applied")
        await asyncio.gather(*(connection.drain(0.0, reason) for connection in every))
        self.log.settle()
