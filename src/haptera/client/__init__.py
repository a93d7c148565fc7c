"""The client: a database as an application uses it, over a connection or embedded in the process."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from haptera.client.calls.access_methods import Amounts, RoleInfo, User, Whoami
from haptera.client.calls.argument_checks import LeaseLike, Value
from haptera.client.calls.backup_pieces import Backup
from haptera.client.calls.entry import Entry
from haptera.client.calls.lease_calls import LeaseInfo
from haptera.client.calls.methods import Maintenance, Metrics, ServerMethods, SnapshotMade
from haptera.client.calls.pending_calls import Pending
from haptera.client.calls.scan import Scan
from haptera.client.calls.transact import Compare, Operation, TransactResult
from haptera.client.calls.transaction import Transaction
from haptera.client.calls.transaction_calls import transact_form
from haptera.client.channels.dial_store import dial_store
from haptera.client.channels.local_node import dial_local, dial_when_found
from haptera.client.channels.remote_channel import RemoteChannel
from haptera.client.channels.store_url import (
    NOTHING,
    PASSWORD_VARIABLE,
    URL_VARIABLE,
    USER_VARIABLE,
    Given,
    Location,
    check_used,
    default_url,
    has_password,
    is_found_here,
    is_named,
    locate,
    shown_url,
    user_beside,
    user_in,
)
from haptera.client.database import Database
from haptera.client.watches.cache import Cache, Callback
from haptera.client.watches.event import Event
from haptera.client.watches.watch import Watch
from haptera.lazy import lazily
from haptera.peer import DEFAULT, Backoff, Connector, Dial, Flight, Timeout
from haptera.span_names import is_recorded

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator

    from haptera.client.calls.administration import Administration, NewToken, RoleGrants, Token, UserQuota
    from haptera.client.calls.pipeline import Pipeline
    from haptera.client.channels.channel import Channel
    from haptera.client.entry_table import table
    from haptera.client.leases.lease import Lease
    from haptera.client.recipes.barrier import Barrier
    from haptera.client.recipes.counter import Counter
    from haptera.client.recipes.election import Election
    from haptera.client.recipes.holding import Holding
    from haptera.client.recipes.job import Job
    from haptera.client.recipes.lock import Lock
    from haptera.client.recipes.queue import Queue
    from haptera.client.recipes.queue_worker import Worker
    from haptera.client.recipes.rate_limit import RateLimit
    from haptera.client.recipes.semaphore import Semaphore
    from haptera.client.typed.typed_cache import TypedCache
    from haptera.client.typed.typed_database import TypedDatabase
    from haptera.client.typed.typed_entries import TypedEntry, TypedEvent
    from haptera.client.typed.typed_streams import TypedChanges, TypedScan, TypedWatch
    from haptera.client.typed.typed_transaction import TypedTransaction
    from haptera.peer import Peer
    from haptera.transport import Place

__all__ = [
    "PASSWORD_VARIABLE",
    "URL_VARIABLE",
    "USER_VARIABLE",
    "Administration",
    "Amounts",
    "Backup",
    "Barrier",
    "Cache",
    "Callback",
    "Compare",
    "Counter",
    "Database",
    "Election",
    "Entry",
    "Event",
    "Given",
    "Holding",
    "Job",
    "Lease",
    "LeaseInfo",
    "LeaseLike",
    "Lock",
    "Maintenance",
    "Metrics",
    "NewToken",
    "Operation",
    "Pending",
    "Pipeline",
    "Queue",
    "RateLimit",
    "RoleGrants",
    "RoleInfo",
    "Scan",
    "Semaphore",
    "ServerMethods",
    "SnapshotMade",
    "Token",
    "TransactResult",
    "Transaction",
    "TypedCache",
    "TypedChanges",
    "TypedDatabase",
    "TypedEntry",
    "TypedEvent",
    "TypedScan",
    "TypedTransaction",
    "TypedWatch",
    "User",
    "UserQuota",
    "Value",
    "Watch",
    "Whoami",
    "Worker",
    "check_used",
    "connect",
    "connect_peer",
    "default_url",
    "has_password",
    "locate",
    "open_embedded",
    "shown_url",
    "table",
    "transact_form",
    "user_beside",
    "user_in",
]

#: Names that few programs use, each with its module, which is imported when it is first used.
_LATER: Final = {
    "Administration": "haptera.client.calls.administration",
    "Pipeline": "haptera.client.calls.pipeline",
    "Barrier": "haptera.client.recipes.barrier",
    "Counter": "haptera.client.recipes.counter",
    "Election": "haptera.client.recipes.election",
    "Holding": "haptera.client.recipes.holding",
    "Job": "haptera.client.recipes.job",
    "Lease": "haptera.client.leases.lease",
    "Lock": "haptera.client.recipes.lock",
    "NewToken": "haptera.client.calls.administration",
    "Queue": "haptera.client.recipes.queue",
    "RateLimit": "haptera.client.recipes.rate_limit",
    "RoleGrants": "haptera.client.calls.administration",
    "Semaphore": "haptera.client.recipes.semaphore",
    "Token": "haptera.client.calls.administration",
    "table": "haptera.client.entry_table",
    "TypedCache": "haptera.client.typed.typed_cache",
    "TypedChanges": "haptera.client.typed.typed_streams",
    "TypedDatabase": "haptera.client.typed.typed_database",
    "TypedEntry": "haptera.client.typed.typed_entries",
    "TypedEvent": "haptera.client.typed.typed_entries",
    "TypedScan": "haptera.client.typed.typed_streams",
    "TypedTransaction": "haptera.client.typed.typed_transaction",
    "TypedWatch": "haptera.client.typed.typed_streams",
    "UserQuota": "haptera.client.calls.administration",
    "Worker": "haptera.client.recipes.queue_worker",
}

if not TYPE_CHECKING:  # a type checker would take it to mean that any name is there
    __getattr__ = lazily(__name__, _LATER)

TIMEOUT_SECONDS = 5.0


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

    Use it as ``async with haptera.connect() as db``, or ``db = await haptera.connect()`` and `Database.aclose`.
    Nothing is sent before the first call, which then leaves in one write with the handshake. A server that cannot be
    reached, or that has no room for the connection, is dialled again, with backoff, for as long as a call has time,
    unless it refuses for a reason that stays (its version, the key, the password). A call that was lost with its
    connection, or whose answer was damaged, is sent again where that is safe: a read always, a change under its id to a
    server that remembers it. A call that has had no answer in time asks at once whether the server is still there, and
    gives the connection up after 2 seconds of silence, so that calls go on with another one.

    With a user the client proves its identity on each connection before a call is answered (SCRAM-SHA-256), and the
    server proves that it knows the user. A refusal fails the calls at once (``haptera.errors.AuthenticationFailed``).

    A database may be made before a fork: each child then has connections and request ids of its own.

        >>> async with haptera.connect() as db:
        ...     await db.increment("visits")
        1

    Args:
        url: ``haptera://host:port`` or ``haptera+unix:///path/to/socket``. Of several hosts,
            ``haptera://a:7457,b:7457``, the first that takes a connection is used; a host that has not within 250 ms is
            joined by the next. The options of a URL are ``?timeout=SECONDS``, ``ping_interval=SECONDS``,
            ``compression=zstd|none`` (by default zstd, where it is installed and the link leaves this machine) and
            ``signed=psk&key_file=PATH`` for a server that signs its frames with a pre-shared key, or ``signed=scram``
            for one that does with the keys of SCRAM; ``auth=scram|external|plain`` names the way to authenticate.
            ``haptera://user:password@host`` has a credential, percent-encoded. Without a URL ``HAPTERA_URL`` is used,
            else ``./haptera-data/haptera.sock`` where it exists and belongs to this user or to root, else ``haptera://127.0.0.1:7457``.
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
        ConfigurationError: The URL is not understood, the credential is given twice, is not whole or would not be
            used, or the socket in the present directory belongs to another user. If another user's process listens on
            it, the first call raises this.
    """
    location, dialled = _find(url, Given(user, password, password_file), ping_interval)
    if timeout is DEFAULT:
        timeout = TIMEOUT_SECONDS if location.timeout is None else location.timeout
    channel = RemoteChannel(location.address, location.shown, wait=wait, dial=dialled)
    return Database(_traced(channel, location.address.places[0]), location.shown, timeout)


@asynccontextmanager
async def connect_peer(
    url: str | None, *, timeout: float | None, wait: bool, given: Given = NOTHING
) -> AsyncIterator[Peer]:
    """The connection itself, for calls that a database does not make; it is closed at the end.

    It is found, checked and waited for as `connect` does, for ``timeout`` seconds. One that is lost later stays lost.
    """
    location, dialled = _find(url, given)
    connector = Connector(location.address, location.shown, Backoff(), dialled, wait=wait)
    deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
    try:
        yield await connector.connected(deadline, Flight.WELCOMED)
    finally:
        await connector.aclose()


def _find(url: str | None, given: Given, ping_interval: float | None = None) -> tuple[Location, Dial]:
    """Where the store is, and how it is dialled: the node of the present directory is not named, but found."""
    named = default_url() if url is None else url
    given = msgspec.structs.replace(given, user=user_beside(url, given.user))
    if url is None:
        check_used(url, given)
    location = locate(named, ping_interval=ping_interval, given=given)
    if is_found_here(url):
        return location, dial_local
    if url is None and not is_named() and location.address.user is None:
        return location, dial_when_found()
    return location, dial_store


def _traced(channel: Channel, place: Place | None) -> Channel:
    """Have the calls of a channel recorded where the program records spans or metrics."""
    if not is_recorded():
        return channel
    from haptera.client.channels.traced_channel import TracedChannel  # noqa: PLC0415  # few programs have it

    return TracedChannel(channel, place)


def open_embedded(
    path: str | os.PathLike[str],
    *,
    durability: Literal["sync", "os"] = "sync",
    memory_max: int = 0,
    master_key_file: str | os.PathLike[str] | None = None,
    master_key_command: str | None = None,
    timeout: float | None = TIMEOUT_SECONDS,
) -> Database:
    """Open the database in a directory in this process: no server, no socket, the same store and calls.

    Use it as ``async with haptera.open(path) as db`` (or ``await``), which opens the directory and replays its log. The
    directory is made where there is none, and is locked: one process at a time. The lock stays with the process that
    opened the directory: a forked child is refused (``DirectoryInUse``) as long as that one has it.

    Needs the extra ``haptera[server]``.

        >>> async with haptera.open("./state") as db:
        ...     await db.set("config/env", "prod")
        1

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
        The database, which entering or awaiting it opens.

    Raises:
        ConfigurationError: An argument cannot be used, or the extra is missing.
        StorageError: The directory cannot be opened (on entering; ``CorruptionError`` for damage).
    """
    from haptera.client.channels.embedded_channel import EmbeddedChannel  # noqa: PLC0415  # it needs the extra, and a client does not

    channel = EmbeddedChannel(path, durability, memory_max, master_key_file, master_key_command)
    return Database(_traced(channel, None), str(path), timeout)
