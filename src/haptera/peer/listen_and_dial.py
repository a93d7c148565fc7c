"""Where connections come from: listening for them and dialling them (spec/protocol.md, section 1)."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, Unpack, overload

import msgspec

from haptera.connection import Budget, Config, Connection, Role, check_keywords
from haptera.errors import ConfigurationError
from haptera.opening import Opening, opening
from haptera.peer.assembly import assemble
from haptera.peer.authentication import PLAIN
from haptera.peer.foreign_bytes import judge_dialler, judge_listener
from haptera.peer.limits import CALL_TIMEOUT_S, WRITE_TIMEOUT_S
from haptera.peer.own_credential import OwnCredential, login_of
from haptera.peer.peer import Peer, link_of
from haptera.peer.request_scope import current
from haptera.peer.server import Server
from haptera.peer.service import Service
from haptera.peer.session import SessionService
from haptera.peer.url_options import Options, read_listening_options, read_options
from haptera.timeouts import check_timeout
from haptera.transport import (
    CONNECTIONS_MAX,
    HALF_OPEN_MAX,
    TLS_HANDSHAKE_S,
    Address,
    Place,
    TlsContext,
    TlsFailed,
    TlsKeeper,
    TlsTransport,
    connect_first,
    context_to_dial,
    is_loopback,
    open_listener,
    parse,
)
from haptera.version import __version__
from haptera.wire import Codec, available

if TYPE_CHECKING:
    from haptera.peer.authentication import Authenticator
    from haptera.peer.keywords import ConnectionOptions, DialOptions
    from haptera.peer.lasting_peer import LastingPeer
    from haptera.peer.link import Link

_SOCKET_MODE: Final = 0o600
AGENT: Final = f"haptera-python/{__version__}"

_process_budget = Budget()
_of_this_thread = threading.local()  # the codec that its connections share


@opening
async def listen(
    url: str,
    *,
    services: Sequence[Service] = (),
    on_peer: Callable[[Peer], None] | None = None,
    authenticator: Authenticator | None = None,
    server_id: bytes | None = None,
    mode: int = _SOCKET_MODE,
    group: str | int | None = None,
    signing_key: bytes | None = None,
    compression: bool | None = None,
    max_connections: int = CONNECTIONS_MAX,
    max_half_open: int = HALF_OPEN_MAX,
    write_timeout_s: float = WRITE_TIMEOUT_S,
    idle_timeout_s: float | None = None,
    process_budget: Budget | None = None,
    **options: Unpack[ConnectionOptions],
) -> Server:
    """Listen on ``url`` and host ``services`` for every connection. ``async with`` closes the server at its end.

    Every address that the URL's host has is listened on, with one port. Of more than ``max_connections`` the newest is
    refused; of more than ``max_half_open``, or half of ``max_connections``, whose handshake is not done, or the proof
    of an identity behind it, an old one is dropped.

    Args:
        url: ``haptera://host:port`` (port 0: a free one) or ``haptera+unix:///path/to/socket``, with the options
            ``ping_interval``, ``compression`` and ``signed`` of ``dial``; or ``hapteras://host:port`` for TLS, with
            ``cert=FILE&key=FILE``. With ``signed=scram`` the keys of SCRAM sign every frame behind the exchange: that
            needs an ``authenticator``. ``client_ca=FILE`` asks for a certificate of the dialling side, and ``crl=FILE``
            lists revoked ones. Files that change are read again for the connections that come.
        services: The services that each connection may call.
        on_peer: Called with each new connection.
        authenticator: Knows the users. Each peer then proves its identity before it is served anything, in ways that
            the authenticator names, and has it as ``Peer.identity``. Without one every peer is anyone.
        server_id: 16 bytes that name this server to its clients; random ones unless given.
        mode: File mode of a Unix socket.
        group: Name or number of a Unix socket's group; the process's own unless given.
        signing_key: A secret of at least 32 bytes. With it every frame is signed, and a dialer without the key is
            refused. In the URL it is ``?signed=psk&key_file=PATH``.
        compression: Whether payloads may be compressed with zstd where the other side asks for it. Unless given, they
            may be wherever the extra ``haptera[zstd]`` is installed.
        max_connections: Connections at once.
        max_half_open: Connections at once whose handshake is not done.
        write_timeout_s: Seconds in which a connection with unsent bytes must take 64 KiB; it is ended otherwise.
        idle_timeout_s: Seconds, give or take a quarter, after which a connection without an open stream is drained.
        process_budget: Bytes that the connections may hold together with all others of the same budget; connections
            without one share one of 1 GiB.
        options: Options of each connection.

    Returns:
        The server, which listens already.

    Raises:
        ConfigurationError: The URL, the address or the value of a keyword cannot be used.
    """
    address = parse(url)
    asked = read_listening_options(address)
    if asked.signs_by_exchange and authenticator is None:
        raise ConfigurationError(f"{address}: signed=scram needs an authenticator, which knows the users")
    loop = asyncio.get_running_loop()
    tls = None if asked.tls is None else TlsKeeper(asked.tls)
    identity = server_id if server_id is not None else os.urandom(16)
    check_keywords(
        address,
        {
            "mode": mode,
            "compression": compression,
            "max_connections": max_connections,
            "max_half_open": max_half_open,
            "write_timeout_s": write_timeout_s,
            "idle_timeout_s": idle_timeout_s,
            "process_budget": process_budget,
            **options,
        },
    )
    settings = _config(address, asked, services, signing_key, options, server_id=identity)
    settings = _with_compression(settings, address, asked, compression, wanted=not address.tls)
    hosted = _hosted(services)
    budget = _process_budget if process_budget is None else process_budget

    def accept() -> asyncio.Protocol:
        connection = Connection(Role.ACCEPTOR, settings, loop.time(), budget)
        peer = assemble(
            connection,
            hosted,
            loop,
            owner=server,
            write_timeout_s=write_timeout_s,
            idle_timeout_s=idle_timeout_s,
            authenticator=authenticator,
        )
        return link_of(peer)

    def accept_tls() -> asyncio.Protocol:
        assert tls is not None  # of this address
        return TlsTransport(accept, tls.current, judge_dialler, on_failure=server.tls_failed)

    scope = current.set(None)  # an accepted connection is not on behalf of the request in which it is listened
    try:
        listener = await open_listener(address, mode=mode, group=group, accept=accept if tls is None else accept_tls)
        server = Server(listener, on_peer, tls, max_connections=max_connections, max_half_open=max_half_open)
        await listener.start()
    finally:
        current.reset(scope)
    return server


@overload
def dial(url: str, *, reconnect: Literal[False] = False, **options: Unpack[DialOptions]) -> Opening[Peer]: ...
@overload
def dial(url: str, *, reconnect: Literal[True], **options: Unpack[DialOptions]) -> Opening[LastingPeer]: ...
@opening
async def dial(
    url: str,
    *,
    reconnect: bool = False,
    services: Sequence[Service] = (),
    timeout: float | None = 5.0,
    user: str | None = None,
    password: str | None = None,
    signing_key: bytes | None = None,
    compression: bool | None = None,
    write_timeout_s: float = WRITE_TIMEOUT_S,
    idle_timeout_s: float | None = None,
    **options: Unpack[ConnectionOptions],
) -> Any:
    """Connect to ``url`` and return the peer there, hosting ``services`` for it. ``async with`` closes it at its end.

    It returns as soon as the transport is open: the handshake leaves together with the first calls in one write, and
    costs no round trip of its own. A handshake that fails fails those calls; ``await peer.ready()`` waits for it.
    With TLS it returns when the handshake of TLS is done and the name of the server is verified.

    With a user and a password this side proves its identity first, and the other side that it knows the user
    (SCRAM-SHA-256, in which no password travels). The first step leaves with HELLO, too. Calls are answered when the
    exchange has ended well, and fail with ``AuthenticationFailed`` otherwise. A side without a password that has a
    certificate, or dials a Unix socket, proves its identity by these where the other side asks for that.

    The first of all addresses of all hosts to take a connection is used, preferred in their order: one that has not
    answered within 250 ms is joined by the next (RFC 8305).

    With ``reconnect`` it returns a `LastingPeer` when the other side has welcomed the first connection: it dials
    again, with backoff, for ``timeout`` seconds, and from then on whenever the connection has ended.

    Args:
        url: ``haptera://host:port``, of several hosts ``haptera://a:7457,b:7457``, or
            ``haptera+unix:///path/to/socket``. Its options: ``timeout`` (of each call that names no other, in seconds),
            ``ping_interval`` (seconds of silence before a PING, 0 for never; the listener's unless given),
            ``compression=zstd|none`` (asked for by itself where it is installed and the link is neither loopback nor a
            Unix socket), ``signed=psk`` with ``key_file=PATH`` or ``signed=scram`` with a user, and ``auth`` for a
            mechanism: ``scram``, ``external`` (the certificate, or the process of a Unix socket) or ``plain`` (the
            password as it is, inside TLS or to a process of this user).
            With ``hapteras://`` in place of ``haptera://`` the
            connection is inside TLS: ``ca=FILE`` has the authorities to trust, which are those of the system unless
            given, and ``cert=FILE&key=FILE`` the certificate of this side.
        reconnect: Whether a connection that has ended is followed by another.
        services: The services that the other side may call.
        timeout: Seconds that all attempts may take; None for no limit.
        user: The user's name, if the URL has none: ``haptera://user:password@host``, percent-encoded.
        password: The user's password, if the URL has none.
        signing_key: As for ``listen``.
        compression: As for ``listen``.
        write_timeout_s: As for ``listen``.
        idle_timeout_s: As for ``listen``.
        options: Options of the connection.

    Returns:
        The peer, whose handshake may not be done.

    Raises:
        ConnectionLost: No host can be reached; its outcome is ``not_applied``.
        ConfigurationError: The URL or the value of a keyword cannot be used.
        TypeError, ValueError: ``timeout`` is not a number of seconds above 0.
    """
    address = parse(url)

    async def dial_once(places: Address, /, *, timeout: float | None) -> Peer:
        return await dial_address(
            places,
            services=services,
            timeout=timeout,
            user=user,
            password=password,
            signing_key=signing_key,
            compression=compression,
            write_timeout_s=write_timeout_s,
            idle_timeout_s=idle_timeout_s,
            **options,
        )

    if not reconnect:
        return await dial_once(address, timeout=timeout)
    asked = read_options(address).timeout
    from haptera.peer.lasting_peer import dial_lasting  # noqa: PLC0415  # few programs dial so, and a database does not

    return await dial_lasting(
        address, dial_once, timeout=timeout, call_timeout_s=CALL_TIMEOUT_S if asked is None else asked
    )


async def dial_address(
    address: Address,
    *,
    services: Sequence[Service] = (),
    timeout: float | None = 5.0,
    user: str | None = None,
    password: str | None = None,
    signing_key: bytes | None = None,
    compression: bool | None = None,
    write_timeout_s: float = WRITE_TIMEOUT_S,
    idle_timeout_s: float | None = None,
    **options: Unpack[ConnectionOptions],
) -> Peer:
    """Dial a URL that was parsed already, as ``dial`` does."""
    asked = read_options(address)
    login = _login(address, asked, user, password, signing_key)
    loop = asyncio.get_running_loop()
    given = {"compression": compression, "write_timeout_s": write_timeout_s, "idle_timeout_s": idle_timeout_s}
    check_keywords(address, {**given, **options})
    if timeout is not None:
        check_timeout(timeout)
    settings = _config(address, asked, services, signing_key, options)
    if login is not None and login.mechanism == PLAIN:
        # A password waits for WELCOME, and requests without an exchange before them would be refused.
        settings = msgspec.structs.replace(settings, flies=False)
    here, elsewhere = (
        _with_compression(settings, address, asked, compression, wanted=wanted) for wanted in (False, not address.tls)
    )
    tls = None if asked.tls is None else context_to_dial(asked.tls, time.time())
    hosted = _hosted(services)
    call_timeout_s = CALL_TIMEOUT_S if asked.timeout is None else asked.timeout

    def make(host: Place) -> Peer:
        connection = Connection(Role.DIALER, here if _is_local(host) else elsewhere, loop.time(), _process_budget)
        return assemble(
            connection,
            hosted,
            loop,
            dialled=host,
            write_timeout_s=write_timeout_s,
            call_timeout_s=call_timeout_s,
            idle_timeout_s=idle_timeout_s,
            login=login,
        )

    scope = current.set(None)  # its requests are not on behalf of the request in which it is dialled
    try:
        peer = await connect_first(address.places, partial(_attempt, make, tls), timeout, discard=_discard)
    finally:
        current.reset(scope)
    # A turn of the loop later than usual: a task that waits for the one that dials still has its request leave with
    # HELLO in one write.
    loop.call_soon(link_of(peer).schedule_flush)
    return peer


async def _attempt(make: Callable[[Place], Peer], tls: TlsContext | None, host: Place, address: Place) -> Peer:
    """Connect to one address of a host. With TLS that takes its handshake, too."""
    loop = asyncio.get_running_loop()
    made: list[Peer] = []

    def connect() -> Link:
        made.append(make(host))  # the time of its handshake begins when the transport is open
        return link_of(made[0])

    if isinstance(address, str):
        await loop.create_unix_connection(connect, address)
    elif tls is None:
        await loop.create_connection(connect, *address)
    else:
        # The certificate has the name without the zone of an IPv6 address, which means something here alone.
        name = str(host[0]).partition("%")[0]
        try:
            transport = TlsTransport(connect, tls, judge_listener, server_name=name)
        except ValueError as error:
            raise TlsFailed(f"no certificate can have its name: {error}", in_handshake=True) from error
        await loop.create_connection(lambda: transport, *address)
        async with asyncio.timeout(TLS_HANDSHAKE_S):
            await transport.wait_open()
    return made[0]


def _discard(peer: Peer) -> None:
    """Close a connection that was opened in the moment in which another one had won."""
    link_of(peer).abort()


def _login(
    address: Address, asked: Options, user: str | None, password: str | None, signing_key: bytes | None
) -> OwnCredential | None:
    """Return the credential of this side; None if it has none, or a pre-shared key stands for its user."""
    certified = bool(address.path) or (asked.tls is not None and asked.tls.certificate is not None)
    login = login_of(address, user, password, asked.auth, certified=certified)
    if signing_key is not None or asked.signing_key is not None:
        if login is not None and not login.optional:
            raise ConfigurationError(f"{address}: a pre-shared key stands for a user, and there is another beside it")
        return None
    if asked.signs_by_exchange and (login is None or login.optional):
        raise ConfigurationError(f"{address}: signed=scram needs a user and a password")
    return login


def _config(
    address: Address,
    asked: Options,
    services: Sequence[Service],
    signing_key: bytes | None,
    options: ConnectionOptions,
    **more: Any,
) -> Config:
    """Return the configuration of a connection: ``asked`` is of the URL, ``options`` of the keywords."""
    _check_services(services)
    names = tuple(sorted({service.name for service in services} | {SessionService.name}))
    if signing_key is not None and address.tls:
        raise ConfigurationError(f"{address}: frames are never signed inside TLS")
    if signing_key is not None and asked.signing_key is not None:
        raise ConfigurationError(f"{address}: a key is given in the URL and beside it")
    key = asked.signing_key if signing_key is None else signing_key
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if asked.ping_interval_ms is not None and "ping_interval_ms" in given:
        raise ConfigurationError(f"{address}: ping_interval is given in the URL and beside it")
    if asked.ping_interval_ms is not None:
        given["ping_interval_ms"] = asked.ping_interval_ms
    given.update(signing_key=key, signs_by_exchange=asked.signs_by_exchange)
    try:
        return Config(**{"agent": AGENT, **given}, entropy=os.urandom, services=names, **more)
    except ValueError as error:
        raise ConfigurationError(f"{address}: {error}") from None


def _with_compression(
    config: Config, address: Address, options: Options, given: bool | None, *, wanted: bool
) -> Config:
    """Return ``config`` with a codec if payloads may be compressed; ``wanted`` is the default."""
    if given is not None and options.compression is not None:
        raise ConfigurationError(f"{address}: compression is given in the URL and beside it")
    asked = options.compression if given is None else given
    if asked and not available():
        raise ConfigurationError(f"{address}: compression needs the extra: pip install 'haptera[zstd]'")
    if asked is False or (asked is None and not (wanted and available())):
        return config
    codec: Codec | None = getattr(_of_this_thread, "codec", None)
    if codec is None:
        codec = _of_this_thread.codec = Codec()
    return msgspec.structs.replace(config, compression=codec)


def _is_local(place: Place) -> bool:
    """Whether a link does not leave this machine: there is nothing to gain from sending less."""
    return isinstance(place, str) or is_loopback(place[0])


def _check_services(services: Sequence[Service]) -> None:
    """Raise ``ConfigurationError`` unless all are services: instances of them, not their classes."""
    if isinstance(services, Service) or not isinstance(services, Collection):
        raise ConfigurationError(f"services is a list of services, not {services!r}")
    for service in services:
        if isinstance(service, type) and issubclass(service, Service):
            name = service.__name__
            raise ConfigurationError(f"services has the class {name}; host an instance, {name}()")
        if not isinstance(service, Service):
            raise ConfigurationError(f"services has {service!r}, which is no haptera.Service")


def _hosted(services: Sequence[Service]) -> list[Service]:
    hosted: dict[str, Service] = {SessionService.name: SessionService()}
    seen: set[str] = set()
    for service in services:
        if not service.name:
            raise ConfigurationError(f"{type(service).__name__} has no name")
        if service.name in seen:
            raise ConfigurationError(f"two services have the name {service.name!r}")
        seen.add(service.name)
        hosted[service.name] = service
    return list(hosted.values())
