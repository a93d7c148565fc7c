"""A node's listeners: the addresses it was given, and the local socket in its data directory."""

from __future__ import annotations

import asyncio
import logging
import os
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from haptera.connection import Budget
from haptera.errors import Code, ConfigurationError, RemoteProtocolError
from haptera.kv_groups import KV_GROUPS
from haptera.node.admitted_connections import AdmittedConnections
from haptera.node.authenticator import (
    MECHANISMS,
    NodeAuthenticator,
    external_name,
    of_local_socket,
    of_signing_key,
    of_users,
)
from haptera.node.config import OPTIONS, NodeConfig
from haptera.node.connection_shares import ConnectionShares, Shares
from haptera.node.descriptors import LOCAL_CONNECTIONS_MAX, connections_max, needed
from haptera.node.exposure import warn_of_exposure, warn_of_no_authentication
from haptera.node.first_start import node_secret
from haptera.node.frontend import Facts, FrontendServer, Gateway
from haptera.node.kept_external_users import KeptExternalUsers
from haptera.node.listened import NO_DIALECTS, dialect_of, read_listened
from haptera.node.login_failures import LoginFailures
from haptera.node.request_rates import RequestRates
from haptera.node.services.admin import AdminService
from haptera.node.services.kv import KvService
from haptera.node.services.rated_service import RatedService
from haptera.node.services.recording import AuditRecording
from haptera.node.services.server import ServerService
from haptera.node.services.session import NodeSessionService
from haptera.node.services.submitters import LOCAL_MECHANISM, admit
from haptera.node.user_budgets import UserBudgets
from haptera.node.visitor import refuse
from haptera.peer import Peer, listen, read_key_file, read_listening_options, share_budget, tls_of
from haptera.transport import SOCKET_PATH_MAX, TCP_SCHEME, UNIX_SCHEME, parse, remove_socket, url_of
from haptera.wire import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from haptera.node.authenticator import Implied
    from haptera.node.frontend import FrontendConnection
    from haptera.node.listened import Dialects
    from haptera.node.metrics import Metrics
    from haptera.node.node import Node
    from haptera.node.visitor import Visitor
    from haptera.peer import Identity, Server, Service
    from haptera.transport import Address

_logger = logging.getLogger(__name__)

#: Numbers that connections count by themselves: read when a sample is taken, and added up when one ends.
_COUNTED: dict[str, Callable[[Peer], int]] = {
    "requests_received_total": lambda peer: peer.requests_received,
    "wire_received_bytes_total": lambda peer: peer.bytes_received,
    "wire_received_frames_total": lambda peer: peer.frames_received,
    "wire_sent_bytes_total": lambda peer: peer.bytes_sent,
    "wire_sent_frames_total": lambda peer: peer.frames_sent,
}


class NodeServer:
    """Serves one node. ``urls`` are the addresses that it listens on, with their real ports; ``local_socket`` is the
    path of the socket in the data directory, if there is one.

    The node's data directory is locked by the node, so a socket found in it belongs to no living process.
    """

    def __init__(self, node: Node, dialects: Dialects = NO_DIALECTS) -> None:
        self.urls: list[str] = []
        self.local_socket: str | None = None
        self._node = node
        self._servers: list[Server] = []
        #: The listeners of dialects, and what all of them tell about the node.
        self._frontends: list[FrontendServer] = []
        self._dialects = node.dialects = dialects
        self._facts = Facts(node, lambda: [each for frontend in self._frontends for each in frontend.connections])
        self._max_connections = node.config.max_connections
        self._shares = ConnectionShares(node.config.max_connections_per_address)
        self._user_shares = Shares(node.config.max_connections_per_user)
        self._budget = Budget(node.config.process_budget)
        self._user_budgets = UserBudgets(node.config.process_budget, node.config.connection_budget)
        #: Of its decoys, and of the certificates of its users, from `start` on.
        self._secret = b""
        self._external = KeptExternalUsers(None, lambda: None)
        self._admitted = AdmittedConnections(node.access, node.read_time_ms, asyncio.get_running_loop())
        node.on_access_changed = self._admitted.look
        recording = AuditRecording(node.audit, node.config)
        self._login_failures = LoginFailures(node.metrics, recording.requests, asyncio.get_running_loop().time)
        self._server_service = ServerService(node, recording.requests)
        self._kv_service = KvService(node.commands, node.metrics, node.watches, recording)
        self._rates = RequestRates(node.config.session_rate, node.config.user_rate, node.config.rate_burst)
        self._services: tuple[Service, ...] = (
            *rated(
                [self._kv_service, self._server_service, AdminService(node.commands, node.metrics, recording.requests)],
                self._rates,
                node.metrics,
            ),
            NodeSessionService(node.metrics, node.roles_of),
        )
        self._ended = dict.fromkeys(_COUNTED, 0)  # of the connections that have ended
        node.metrics.measure(
            {
                "connections": lambda: node.connections,
                "connections_refused_total": lambda: (
                    sum(server.refused for server in self._every) + self._shares.refused + self._user_shares.refused
                ),
                "certificate_end_time_seconds": lambda: node.certificate_ends_at or 0,
                "half_open_connections": lambda: sum(server.half_open for server in self._every),
                "requests_in_flight": lambda: self._sum(lambda peer: peer.serving),
                "tls_failed_total": lambda: sum(server.tls_failures for server in self._every),
                "tls_files_refused_total": lambda: sum(tls.failed_reloads for tls in node.tls),
                **{name: partial(self._total, name) for name in _COUNTED},
            }
        )

    async def start(self) -> None:
        """Listen on the local socket and on every configured address.

        Raises ConfigurationError for an address that cannot be listened on, and where there are too few descriptors for
        any connection; then nothing is listened on. The local socket is a convenience: without it (its path is too
        long, say) there is a warning.
        """
        config = self._node.config
        self._limit_connections(config)
        signing_key = None if config.signing_key_file is None else read_key_file(config.signing_key_file)
        self._secret = b"" if config.no_auth else await node_secret(self._node)
        self._external = external = KeptExternalUsers(
            config.external_users_file,
            lambda: self._admitted.look_outside(partial(external_name, external)),
        )
        external.start()
        try:
            # First: a client that waits for the node of its directory would be refused at a port, for want of a login.
            local = await self._listen_locally()
            self.urls = [await self._listen_on(url, signing_key) for url in config.listen]
        except BaseException:
            await self.aclose()
            raise
        if local is not None:
            self.urls.append(local)
        for url in self.urls:
            _logger.info("listening", extra={"url": url})
        warn_of_no_authentication(config)
        for configured, url in zip(config.listen, self.urls, strict=False):  # the local socket is behind them
            warn_of_exposure(configured, url, config, self._dialects)

    def _limit_connections(self, config: NodeConfig) -> None:
        listeners = len(config.listen)
        self._max_connections = connections_max(config.max_connections, listeners)
        if self._max_connections < config.max_connections:
            enough = needed(config.max_connections, listeners)
            _logger.warning(
                "fewer_connections",
                extra={
                    "max_connections": self._max_connections,
                    "configured": config.max_connections,
                    "meaning": "each listener takes no more: the log needs some of the open files too",
                    "help": f"ulimit -n {enough}, LimitNOFILE={enough} for systemd, or a lower max_connections",
                },
            )

    async def reload_files(self) -> bool:
        """Read the files of TLS and of the external users again, and return whether all can be used. The log says what
        is wrong with them.
        """
        usable = [server.reload_certificates() for server in self._every]  # of each, also where another's are bad
        return await self._external.reload() and all(usable)

    async def drain(self, timeout: float) -> None:
        """Accept no connection and take no request any more, and give the requests under way `timeout` seconds."""
        self._kv_service.stop()
        self._server_service.stop()
        await asyncio.gather(*(server.drain(timeout) for server in self._every))

    async def aclose(self) -> None:
        """Close every listener and connection."""
        self._node.on_access_changed = None
        self._admitted.stop()
        self._external.stop()
        servers = self._every
        self._servers, self._frontends = [], []
        for server in servers:
            await server.aclose()

    def _implied(self, url: str, signing_key: bytes | None) -> Implied:
        """The identity of the peers at an address that need no other proof."""
        if signing_key is None and read_listening_options(parse(url)).signing_key is None:
            return of_users
        return self._implied_by_key()

    def _implied_by_key(self) -> Implied:
        """The identity of the peers that have a pre-shared key."""
        node = self._node
        user = node.config.signing_user or node.config.admin_user
        if not node.config.no_auth and user not in node.access.users:
            meaning = "peers with the signing key act as this user, and may do nothing until it is there"
            _logger.warning("signing_user_unknown", extra={"user": user, "meaning": meaning})
        return of_signing_key(user)

    def _authenticator(self, implied: Implied) -> NodeAuthenticator | None:
        """The users that may come in at a listener; None where it asks for no proof."""
        node = self._node
        if node.config.no_auth:
            return None
        return NodeAuthenticator(
            node.access, node.read_time_ms, self._secret, self._external, implied, self._login_failures, self._on_proof
        )

    async def _listen_on(self, url: str, signing_key: bytes | None) -> str:
        """Listen on a configured address, and return it with its real port."""
        config = self._node.config
        mode, group = int(config.socket_mode, 8), config.socket_group
        try:
            address, tls, _, by_exchange = read_listened(url, self._dialects)
            if address.protocol != TCP_SCHEME:
                return await self._listen_for_dialect(address, mode)
            if self.local_socket is not None and _is_same(address.path, self.local_socket):
                return url  # it listens there already
            key = None if tls is not None or by_exchange else signing_key
            return await self._listen(url, key, self._max_connections, self._implied(url, key), mode=mode, group=group)
        except OSError as error:
            raise ConfigurationError(f"cannot listen on {url}: {error.strerror or error}") from error

    async def _listen(
        self, url: str, signing_key: bytes | None, max_connections: int, implied: Implied, **of_socket: Any
    ) -> str:
        server = await listen(
            url,
            authenticator=self._authenticator(implied),
            services=self._services,
            on_peer=self._on_peer,
            server_id=self._node.server_id,
            signing_key=signing_key,
            process_budget=self._budget,
            groups=KV_GROUPS,
            **of_socket,
            **settings(msgspec.structs.replace(self._node.config, max_connections=max_connections)),
        )
        self._servers.append(server)
        if (tls := tls_of(server)) is not None:
            self._node.tls = (*self._node.tls, tls)
        # Of TCP the listener knows the port; the URL of a socket is as it was given, with its signs quoted.
        return url if url.startswith(UNIX_SCHEME) else server.url

    async def _listen_for_dialect(self, address: Address, mode: int) -> str:
        dialect = dialect_of(address, self._dialects)
        signed = dialect.is_signed(dialect.settings(address))
        authenticator = self._authenticator(self._implied_by_key() if signed else of_users)
        server = FrontendServer(
            dialect,
            address,
            Gateway(self._node, authenticator, self._rates, self._facts),
            self._node.config,
            self._budget,
            max_connections=self._max_connections,
            on_connection=self._on_connection,
        )
        await server.start(mode=mode, group=self._node.config.socket_group)
        self._frontends.append(server)
        if server.tls is not None:
            self._node.tls = (*self._node.tls, server.tls)
        return server.url

    @property
    def _every(self) -> list[Server | FrontendServer]:
        """All listeners."""
        return [*self._servers, *self._frontends]

    async def _listen_locally(self) -> str | None:
        path, url = self._node.local_socket_path, None
        if len(os.fsencode(path)) > SOCKET_PATH_MAX:
            _logger.warning(
                "no_local_socket",
                extra={
                    "path": path,
                    "reason": f"the path is longer than the {SOCKET_PATH_MAX} bytes a socket may have",
                },
            )
            return None
        try:
            remove_socket(path)  # the lock of the directory is held, so no living node listens on it
            # A user who can open this socket can read the key's file too.
            connections = min(self._max_connections, LOCAL_CONNECTIONS_MAX)
            url = await self._listen(url_of(path), None, connections, of_local_socket)
        except (OSError, ConfigurationError) as error:
            _logger.warning("no_local_socket", extra={"path": path, "reason": str(error)})
        else:
            self.local_socket = path
        return url

    def _on_peer(self, peer: Peer) -> None:
        address = self._shares.take_of(peer.remote)
        if address is None:
            # Without the second that others have to read why: else they would take the places of the others meanwhile.
            refuse(peer, Code.TOO_MANY_CONNECTIONS, {"limit": self._shares.limit}, linger=False)
            return
        self._node.metrics.connections_total += 1
        self._node.connections += 1
        admit(peer, self._node.commands)
        peer.on_close(lambda: self._on_close(peer, address))

    def _on_connection(self, connection: FrontendConnection) -> Callable[[], None] | None:
        """A connection of a dialect was accepted. Returns what is to be called when it is gone, if it is taken."""
        address = self._shares.take_of(connection.caller.remote)
        if address is None:
            refuse(connection.caller, Code.TOO_MANY_CONNECTIONS, {"limit": self._shares.limit}, linger=False)
            return None
        self._node.metrics.connections_total += 1
        self._node.connections += 1
        return lambda: self._count_end(address, _of_connection(connection))

    def _on_proof(self, peer: Visitor, identity: Identity) -> None:
        """A connection has an identity. The node's own user is let in at the local socket, however many there are."""
        user = "" if identity.mechanism == LOCAL_MECHANISM else identity.user
        if not self._user_shares.take(user):
            refuse(peer, Code.TOO_MANY_CONNECTIONS, {"limit": self._user_shares.limit}, linger=True)
        else:
            peer.on_close(lambda: self._user_shares.give_back(user))
            self._share_budget(peer, user)
            if identity.mechanism in MECHANISMS:
                self._admitted.add(peer, identity.user, identity.mechanism)

    def _share_budget(self, peer: Visitor, user: str) -> None:
        """Have a connection hold its bytes as one of its user's, or of the user for whom a token counts."""
        payer = self._node.access.payer(user) or user
        if payer:
            budget = self._user_budgets.take(payer)
            if isinstance(peer, Peer):
                share_budget(peer, budget)
            else:
                peer.share_budget(budget)
            peer.on_close(lambda: self._user_budgets.give_back(payer))

    def _on_close(self, peer: Peer, address: str) -> None:
        self._count_end(address, {name: read(peer) for name, read in _COUNTED.items()})
        error = peer.error
        if error is not None:
            found_here = isinstance(error, RemoteProtocolError)
            name = "protocol_errors_total" if found_here else "protocol_errors_reported_total"
            self._node.metrics.count_code(name, error.code)

    def _count_end(self, address: str, counted: dict[str, int]) -> None:
        """A connection has ended, with these numbers."""
        self._shares.give_back(address)
        self._node.connections -= 1
        self._node.collector.connection_ended()
        for name, number in counted.items():
            self._ended[name] += number

    def _total(self, name: str) -> int:
        of_dialects = sum(_of_connection(each).get(name, 0) for each in self._facts.connections())
        return self._ended[name] + self._sum(_COUNTED[name]) + of_dialects

    def _sum(self, read: Callable[[Peer], int]) -> int:
        return sum(read(peer) for server in self._servers for peer in server.peers)


def _of_connection(connection: FrontendConnection) -> dict[str, int]:
    """The numbers that a connection of a dialect counts by itself."""
    return {
        "requests_received_total": connection.caller.requests_received,
        "wire_received_bytes_total": connection.bytes_received,
        "wire_sent_bytes_total": connection.bytes_sent,
    }


def _is_same(path: str, other: str) -> bool:
    return os.path.realpath(path) == os.path.realpath(other)


def rated(services: Sequence[Service], rates: RequestRates, metrics: Metrics) -> Sequence[Service]:
    """The services as a node with request rates serves them; where it has none, as they are."""
    if not rates.any:
        return services
    clock = asyncio.get_running_loop().time
    return [RatedService(service, rates, metrics, clock) for service in services]


def settings(config: NodeConfig) -> dict[str, Any]:
    """The keywords of `haptera.peer.listen` that a node's configuration sets."""
    keywords = {
        option.keyword: option.given(getattr(config, name)) for name, option in OPTIONS.items() if option.keyword
    }
    return {**keywords, "limits": Limits(**{name: getattr(config, name) for name in Limits.__struct_fields__})}
