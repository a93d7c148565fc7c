"""Where connections come from: listening for them and dialling them (spec/protocol.md, section 1)."""

import asyncio
import os
import threading
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from haptera.connection import Budget, Config, Connection, Role
from haptera.connection.bounds import check_keywords
from haptera.errors import ConfigurationError
from haptera.peer.calls import check_timeout
from haptera.peer.exchange import Exchange
from haptera.peer.limits import CALL_TIMEOUT_S, WRITE_TIMEOUT_S
from haptera.peer.opening import opening
from haptera.peer.options import Options, read_options
from haptera.peer.peer import Peer
from haptera.peer.protocol import TransportProtocol
from haptera.peer.scope import current
from haptera.peer.server import Server
from haptera.peer.service import Service
from haptera.peer.session import SessionService
from haptera.transport import (
    CONNECTIONS_MAX,
    HALF_OPEN_MAX,
    Address,
    Place,
    connect_first,
    is_loopback,
    open_listener,
    parse,
)
from haptera.version import __version__
from haptera.wire.compression import Codec, available

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
    **config: Any,
) -> Server:
    """Listen on ``url`` and host ``services`` for whoever connects. ``async with`` closes the server at its end.

    Every address that the URL's host has is listened on, with one port. ``on_peer`` is called with each new connection;
    ``mode`` is the file mode of a Unix socket, ``group`` the name or number of its group, by default the process's.
    With ``signing_key``, a secret of at least 32 bytes, or with ``?signed=psk&key_file=PATH`` in the URL, every frame
    is signed, and who does not have the key is refused. ``compression`` says whether payloads may be compressed with
    zstd where the other side asks for it: wherever the extra ``haptera[zstd]`` is installed, unless given. Of more than
    ``max_connections`` the newest is refused; of more than ``max_half_open``, or half of ``max_connections``, whose
    handshake is not done the oldest is dropped. Who takes less than 64 KiB in ``write_timeout_s`` seconds while more
    waits is disconnected. A connection on which no stream is open for ``idle_timeout_s`` seconds, give or take a
    quarter, is drained. What the connections may hold together with all others that have the same ``process_budget`` is
    its bytes; those to which none is given share one of 1 GiB. Other keywords are those of
    ``haptera.connection.Config``, for instance ``ping_interval_ms``, ``handshake_timeout_s`` and ``frame_timeout_s``.
    Raises ``ConfigurationError`` if the URL, the address or the value of a keyword cannot be used.
    """
    address = parse(url)
    _refuse_user(address)
    options = read_options(address)
    if options.timeout is not None:
        raise ConfigurationError(f"{address}: timeout is an option of who dials")
    loop = asyncio.get_running_loop()
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
            **config,
        },
    )
    settings = _config(address, options, services, signing_key, server_id=identity, **config)
    settings = _with_compression(settings, address, options, compression, wanted=True)
    hosted = _hosted(services)
    budget = _process_budget if process_budget is None else process_budget

    def accept() -> TransportProtocol:
        connection = Connection(Role.ACCEPTOR, settings, loop.time(), budget)
        return TransportProtocol(
            Exchange(
                connection,
                hosted,
                loop,
                owner=server,
                write_timeout_s=write_timeout_s,
                idle_timeout_s=idle_timeout_s,
            )
        )

    scope = current.set(None)  # what is accepted is not on behalf of whoever listens
    try:
        listener = await open_listener(address, mode=mode, group=group, accept=accept)
        server = Server(listener, on_peer, max_connections=max_connections, max_half_open=max_half_open)
        await listener.start()
    finally:
        current.reset(scope)
    return server


@opening
async def dial(
    url: str | Address,
    *,
    services: Sequence[Service] = (),
    timeout: float | None = 5.0,
    signing_key: bytes | None = None,
    compression: bool | None = None,
    write_timeout_s: float = WRITE_TIMEOUT_S,
    idle_timeout_s: float | None = None,
    **config: Any,
) -> Peer:
    """Connect to ``url`` and return the peer there, hosting ``services`` for it. ``async with`` closes it at its end.

    It returns as soon as the transport is open: the handshake leaves together with the first calls in one write, and
    costs no round trip of its own. A handshake that fails fails those calls; ``await peer.ready()`` waits for it.

    The first of all addresses of all hosts to take a connection is used, preferred in their order: one that has not
    answered within 250 ms is joined by the next (RFC 8305), all within ``timeout`` seconds.
    ``signing_key``, ``compression`` and other keywords are those of ``listen``. The URL's options: ``timeout`` (of each
    call that names no other, in seconds), ``ping_interval`` (seconds of silence before a PING, 0 for never; the
    listener's unless given), ``compression=zstd|none`` (asked for by itself where it is installed and the link is
    neither loopback nor a Unix socket), ``signed=psk`` with ``key_file=PATH``. Raises ``ConnectionLost`` (outcome
    ``not_applied``) if no host can be reached, ``ConfigurationError`` if the URL or the value of a keyword cannot be
    used, ``TypeError`` or ``ValueError`` for a ``timeout`` that is no number of seconds above 0.
    """
    address = parse(url) if isinstance(url, str) else url
    _refuse_user(address)
    options = read_options(address)
    loop = asyncio.get_running_loop()
    given = {"compression": compression, "write_timeout_s": write_timeout_s, "idle_timeout_s": idle_timeout_s}
    check_keywords(address, {**given, **config})
    if timeout is not None:
        check_timeout(timeout)
    settings = _config(address, options, services, signing_key, **config)
    here, elsewhere = (
        _with_compression(settings, address, options, compression, wanted=wanted) for wanted in (False, True)
    )
    hosted = _hosted(services)
    call_timeout_s = CALL_TIMEOUT_S if options.timeout is None else options.timeout

    def connect(host: Place) -> TransportProtocol:
        connection = Connection(Role.DIALER, here if _is_local(host) else elsewhere, loop.time(), _process_budget)
        return TransportProtocol(
            Exchange(
                connection,
                hosted,
                loop,
                write_timeout_s=write_timeout_s,
                call_timeout_s=call_timeout_s,
                idle_timeout_s=idle_timeout_s,
                dialled=host,
            )
        )

    scope = current.set(None)  # what arrives on the connection is not on behalf of whoever dials
    try:
        peer = await connect_first(address.places, partial(_attempt, connect), timeout, discard=Exchange._abort)
    finally:
        current.reset(scope)
    # A turn of the loop later than usual: a task that waits for the one that dials still has its request leave with
    # HELLO in one write.
    loop.call_soon(peer._schedule_flush)
    return peer


async def _attempt(connect: Callable[[Place], TransportProtocol], host: Place, address: Place) -> Exchange:
    """Connect to one address of a host."""
    loop = asyncio.get_running_loop()
    factory = partial(connect, host)
    if isinstance(address, str):
        _, protocol = await loop.create_unix_connection(factory, address)
    else:
        _, protocol = await loop.create_connection(factory, *address)
    peer = protocol.peer
    assert isinstance(peer, Exchange)  # as `connect` made it
    return peer


def _config(
    address: Address, options: Options, services: Sequence[Service], signing_key: bytes | None, **config: Any
) -> Config:
    _check_services(services)
    names = tuple(sorted({service.name for service in services} | {SessionService.name}))
    if signing_key is not None and options.signing_key is not None:
        raise ConfigurationError(f"{address}: a key is given in the URL and beside it")
    key = options.signing_key if signing_key is None else signing_key
    if options.ping_interval_ms is not None:
        if config.get("ping_interval_ms") is not None:
            raise ConfigurationError(f"{address}: ping_interval is given in the URL and beside it")
        config["ping_interval_ms"] = options.ping_interval_ms
    agent = config.pop("agent", AGENT)
    given = {name: value for name, value in config.items() if value is not None}
    try:
        return Config(entropy=os.urandom, agent=agent, services=names, signing_key=key, **given)
    except ValueError as error:
        raise ConfigurationError(f"{address}: {error}") from None


def _with_compression(
    config: Config, address: Address, options: Options, given: bool | None, *, wanted: bool
) -> Config:
    """Return ``config`` with a codec if payloads may be compressed; ``wanted`` is what holds if nobody says."""
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
    """Raise ``ConfigurationError`` for what are no services: instances of them, not their classes."""
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


def _refuse_user(address: Address) -> None:
    """Refuse what a URL may say one day and nothing here honours: a credential is never dropped."""
    if address.user is not None:
        raise ConfigurationError(f"{address} has a user, and this version cannot authenticate")
