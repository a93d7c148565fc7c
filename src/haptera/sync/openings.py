# Generated from client/__init__.py, peer/listen_and_dial.py by tools/generate_sync.py (make generate). Do not edit.
"""The beginnings: databases, peers and servers, for threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from haptera.client import connect as async_connect
from haptera.client import open_embedded
from haptera.connection import Budget
from haptera.peer import DEFAULT, Authenticator, ConnectionOptions, Timeout
from haptera.peer import dial as async_dial
from haptera.peer import listen as async_listen
from haptera.sync.database import Database
from haptera.sync.loop_thread import shared
from haptera.sync.messaging import LastingPeer, Peer, Server
from haptera.sync.services import HandlerThreads, Service

if TYPE_CHECKING:
    from haptera.client import Database as AsyncDatabase


def connect(
    url: str | None = None,
    *,
    user: str | None = None,
    password: str | None = None,
    password_file: str | os.PathLike[str] | None = None,
    timeout: Timeout = DEFAULT,
    wait: bool = True,
    ping_interval: float | None = None,
) -> Database:
    """Open a database that is served at ``url``.

    Use it as ``with haptera.sync.connect() as db``, or ``db = haptera.sync.connect()`` and `Database.aclose`. Nothing
    is sent before the first call, which then leaves in one write with the handshake. A server that cannot be reached,
    or that has no room for the connection, is dialled again, with backoff, for as long as a call has time, unless it
    refuses for a reason that stays (its version, the key, the password). A call that was lost with its connection, or
    whose answer was damaged, is sent again where that is safe: a read always, a change under its id to a server that
    remembers it. A call that has had no answer in time asks at once whether the server is still there, and gives the
    connection up after 2 seconds of silence, so that calls go on with another one.

    With a user the client proves its identity on each connection before a call is answered (SCRAM-SHA-256), and the
    server proves that it knows the user. A refusal fails the calls at once (``haptera.errors.AuthenticationFailed``).

    A database may be made before a fork: each child then has connections and request ids of its own.

    Args:
        url: ``haptera://host:port`` or ``haptera+unix:///path/to/socket``. Of several hosts,
            ``haptera://a:7457,b:7457``, the first that takes a connection is used; a host that has not within 250 ms is
            joined by the next. The options of a URL are ``?timeout=SECONDS``, ``ping_interval=SECONDS``,
            ``compression=zstd|none`` (by default zstd, where it is installed and the link leaves this machine) and
            ``signed=psk&key_file=PATH`` for a server that signs its frames with a pre-shared key, or ``signed=scram``
            for one that does with the keys of SCRAM; ``auth=scram|external|plain`` names the way to authenticate.
            ``haptera://user:password@host`` has a credential, percent-encoded. Without a URL ``HAPTERA_URL`` is used,
            else ``./haptera-data/haptera.sock`` where it exists and belongs to this user or to root, else
            ``haptera://127.0.0.1:7457``.
        user: The user's name, if the URL has none. Without a URL ``HAPTERA_USER`` may name it. The socket in the
            present directory takes this process without a login: a user is an error there.
        password: The user's password, if the URL has none. Without one it is that of ``password_file``, else
            ``HAPTERA_PASSWORD``.
        password_file: A file with the password in its one line.
        timeout: Seconds for each call without a timeout of its own; 5 unless the URL says otherwise, None for no limit.
        wait: Whether a call waits for a server that has never answered. If not, it fails at once where nothing listens.
        ping_interval: Seconds of silence on a connection before a PING; as many again without a sign of life end it. 0
            is never, None the server's own, which is 30 unless it is configured.

    Returns:
        The database.

    Raises:
        ConfigurationError: The URL is not understood, the credential is given twice, is not whole or would not be used,
            or the socket in the present directory belongs to another user. If another user's process listens on it, the
            first call raises this.
    """
    return _begun(
        async_connect(
            url,
            user=user,
            password=password,
            password_file=password_file,
            timeout=timeout,
            wait=wait,
            ping_interval=ping_interval,
        )
    )


def open(
    path: str | os.PathLike[str],
    *,
    durability: Literal["sync", "os"] = "sync",
    memory_max: int = 0,
    master_key_file: str | os.PathLike[str] | None = None,
    master_key_command: str | None = None,
    timeout: float | None = 5.0,
) -> Database:
    """Open the database in a directory in this process: no server, no socket, the same store and calls.

    Use it as ``with haptera.sync.open(path) as db``; it opens the directory and replays its log. The directory is made
    where there is none, and is locked: one process at a time. The lock stays with the process that opened the
    directory: a forked child is refused (``DirectoryInUse``) as long as that one has it.

    Needs the extra ``haptera[server]``.

    Args:
        path: The data directory.
        durability: ``"sync"`` answers a change when it is on the disk, ``"os"`` when the operating system has it.
        memory_max: Bytes of memory that the keys and values may take; a change that would make it more is refused
            (``MemoryFull``). 0 for no bound.
        master_key_file: The file of the master key, 32 bytes or 64 hex digits. The variable ``HAPTERA_MASTER_KEY`` may
            hold it instead. Without one, a master key is made and kept in the directory.
        master_key_command: A command that writes the master key to its standard output, in place of a file.
        timeout: Seconds that each call may take that names no other; None for no limit.

    Returns:
        The database, which is open.

    Raises:
        ConfigurationError: An argument cannot be used, or the extra is missing.
        StorageError: The directory cannot be opened (``CorruptionError`` for damage).
    """
    return _begun(
        open_embedded(
            path,
            durability=durability,
            memory_max=memory_max,
            master_key_file=master_key_file,
            master_key_command=master_key_command,
            timeout=timeout,
        )
    )


def listen(
    url: str,
    *,
    services: Sequence[Service] = (),
    on_peer: Callable[[Peer], None] | None = None,
    authenticator: Authenticator | None = None,
    server_id: bytes | None = None,
    mode: int = 384,
    group: str | int | None = None,
    signing_key: bytes | None = None,
    compression: bool | None = None,
    max_connections: int = 10000,
    max_half_open: int = 4096,
    write_timeout_s: float = 30.0,
    idle_timeout_s: float | None = None,
    process_budget: Budget | None = None,
    handler_threads: int = 32,
    **options: Unpack[ConnectionOptions],
) -> Server:
    """Listen on ``url`` and host ``services`` for every connection. ``with`` closes the server at its end.

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
        handler_threads: Requests that are handled at once, each in a thread of its own; more wait for their turn.
        options: Options of each connection.

    Returns:
        The server, which listens already.

    Raises:
        ConfigurationError: The URL, the address or the value of a keyword cannot be used.
    """
    threads = HandlerThreads(services, handler_threads)
    return Server(
        shared.run(
            lambda: async_listen(
                url,
                services=threads.services,
                on_peer=None if on_peer is None else threads.met(on_peer),
                authenticator=authenticator,
                server_id=server_id,
                mode=mode,
                group=group,
                signing_key=signing_key,
                compression=compression,
                max_connections=max_connections,
                max_half_open=max_half_open,
                write_timeout_s=write_timeout_s,
                idle_timeout_s=idle_timeout_s,
                process_budget=process_budget,
                **options,
            ),
            undo=lambda made: made.aclose(),
        ),
        handlers=threads,
    )


@overload
def dial(
    url: str,
    *,
    reconnect: Literal[False] = False,
    services: Sequence[Service] = (),
    timeout: float | None = 5.0,
    user: str | None = None,
    password: str | None = None,
    signing_key: bytes | None = None,
    compression: bool | None = None,
    write_timeout_s: float = 30.0,
    idle_timeout_s: float | None = None,
    handler_threads: int = 32,
    **options: Unpack[ConnectionOptions],
) -> Peer: ...


@overload
def dial(
    url: str,
    *,
    reconnect: Literal[True],
    services: Sequence[Service] = (),
    timeout: float | None = 5.0,
    user: str | None = None,
    password: str | None = None,
    signing_key: bytes | None = None,
    compression: bool | None = None,
    write_timeout_s: float = 30.0,
    idle_timeout_s: float | None = None,
    handler_threads: int = 32,
    **options: Unpack[ConnectionOptions],
) -> LastingPeer: ...


def dial(
    url: str,
    *,
    reconnect: bool = False,
    services: Sequence[Service] = (),
    timeout: float | None = 5.0,
    user: str | None = None,
    password: str | None = None,
    signing_key: bytes | None = None,
    compression: bool | None = None,
    write_timeout_s: float = 30.0,
    idle_timeout_s: float | None = None,
    handler_threads: int = 32,
    **options: Unpack[ConnectionOptions],
) -> Peer | LastingPeer:
    """Connect to ``url`` and return the peer there, hosting ``services`` for it. ``with`` closes it at its end.

    It returns as soon as the transport is open: the handshake leaves together with the first calls in one write, and
    costs no round trip of its own. A handshake that fails fails those calls; ``peer.ready()`` waits for it. With TLS it
    returns when the handshake of TLS is done and the name of the server is verified.

    With a user and a password this side proves its identity first, and the other side that it knows the user
    (SCRAM-SHA-256, in which no password travels). The first step leaves with HELLO, too. Calls are answered when the
    exchange has ended well, and fail with ``AuthenticationFailed`` otherwise. A side without a password that has a
    certificate, or dials a Unix socket, proves its identity by these where the other side asks for that.

    The first of all addresses of all hosts to take a connection is used, preferred in their order: one that has not
    answered within 250 ms is joined by the next (RFC 8305).

    With ``reconnect`` it returns a `LastingPeer` when the other side has welcomed the first connection: it dials again,
    with backoff, for ``timeout`` seconds, and from then on whenever the connection has ended.

    Args:
        url: ``haptera://host:port``, of several hosts ``haptera://a:7457,b:7457``, or
            ``haptera+unix:///path/to/socket``. Its options: ``timeout`` (of each call that names no other, in seconds),
            ``ping_interval`` (seconds of silence before a PING, 0 for never; the listener's unless given),
            ``compression=zstd|none`` (asked for by itself where it is installed and the link is neither loopback nor a
            Unix socket), ``signed=psk`` with ``key_file=PATH`` or ``signed=scram`` with a user, and ``auth`` for a
            mechanism: ``scram``, ``external`` (the certificate, or the process of a Unix socket) or ``plain`` (the
            password as it is, inside TLS or to a process of this user). With ``hapteras://`` in place of ``haptera://``
            the connection is inside TLS: ``ca=FILE`` has the authorities to trust, which are those of the system unless
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
        handler_threads: Requests that are handled at once, each in a thread of its own; more wait for their turn.
        options: Options of the connection.

    Returns:
        The peer, whose handshake may not be done.

    Raises:
        ConnectionLost: No host can be reached; its outcome is ``not_applied``.
        ConfigurationError: The URL or the value of a keyword cannot be used.
        TypeError, ValueError: ``timeout`` is not a number of seconds above 0.
    """
    threads = HandlerThreads(services, handler_threads)
    begin: Any = async_dial
    found: Any = shared.run(
        lambda: begin(
            url,
            reconnect=reconnect,
            services=threads.services,
            timeout=timeout,
            user=user,
            password=password,
            signing_key=signing_key,
            compression=compression,
            write_timeout_s=write_timeout_s,
            idle_timeout_s=idle_timeout_s,
            **options,
        ),
        undo=lambda made: made.aclose(),
    )
    return LastingPeer(found, handlers=threads) if reconnect else Peer(found, handlers=threads)


def _begun(inner: AsyncDatabase) -> Database:
    db = Database(inner)
    try:
        return db.__enter__()
    except BaseException:
        db.aclose()
        raise
