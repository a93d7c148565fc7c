"""The client of CAFE: one connection, and any number of calls in flight on it (spec/cafe.md)."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, Self, TypeVar

from haptera.dialects.cafe.key_files import KEY_FILE, read_shared_key
from haptera.dialects.cafe.message_keys import ConnectionKey, can_encrypt
from haptera.dialects.cafe.messages import Opcode
from haptera.dialects.cafe.multiplexed_connection import MultiplexedConnection, Sending
from haptera.errors import Code, ConfigurationError, ConnectionLost, Failure, failure
from haptera.key_rules import invalid_key, is_key, value_refusal
from haptera.opening import opening
from haptera.timeouts import DEFAULT, Timeout, check_timeout
from haptera.transport import (
    TLS_HANDSHAKE_S,
    TLS_OPTIONS,
    Address,
    Foreign,
    Place,
    TlsContext,
    TlsFailed,
    TlsTransport,
    check_tls_option,
    connect_first,
    context_to_dial,
    parse,
    read_tls_files,
    running_loop,
    warn_unclosed,
    wrong_loop,
)
from haptera.wire import available

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from types import TracebackType

T = TypeVar("T")

#: Seconds that a call may take, and that all attempts to connect may take.
TIMEOUT_S: Final = 5.0
_PROTOCOL: Final = "cafe"
_FOREIGN: Final = Foreign("it does not speak TLS")


class MultiplexedClient:
    """Gets, sets and deletes keys of a node by CAFE. ``connect`` makes one; any number of calls may be in flight.

    Calls in flight together are concurrent: a program that wants one behind another awaits the first. A lost connection
    fails the calls on it with `ConnectionLost`, whose outcome is ``unknown`` because they may have been applied, and
    the next call dials again. So does the call for which no request_id is left.
    """

    def __init__(self, address: Address, key: ConnectionKey, sending: Sending, timeout: float | None) -> None:
        """Made by ``connect``."""
        self._address = address
        self._key = key
        self._sending = sending
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._connection: MultiplexedConnection | None = None
        self._retired: set[MultiplexedConnection] = set()  # their ids are spent, and they wait for their last answers
        self._dialling: asyncio.Task[MultiplexedConnection] | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"MultiplexedClient({str(self._address)!r})"

    def __del__(self) -> None:
        if self._connection is not None and self._connection.lost is None and not self._closed:
            warn_unclosed(self, repr(self))

    @classmethod
    @opening
    async def connect(
        cls,
        address: str,
        *,
        key: bytes | None = None,
        bind: bool = True,
        encrypt: bool = False,
        compress: bool = False,
        timeout: float | None = TIMEOUT_S,
    ) -> Self:
        """Connect to a listener of CAFE. ``async with`` closes the client at its end.

        Args:
            address: ``cafe://host:port``, ``cafe+unix:///path``, or for TLS ``cafes://host:port`` with the options
                ``ca``, ``cert``, ``key`` and ``tls_min``; ``key_file=PATH`` is the file of the shared key.
            key: The shared key, 32 bytes, if the address has no ``key_file``.
            bind: Whether the connection has a key of its own, so that a recording of it is of no use to anyone. It
                costs a round trip.
            encrypt: Whether keys and values are encrypted. It needs the package ``cryptography``
                (``haptera[server]``).
            compress: Whether long values are compressed, both ways. It needs ``haptera[zstd]``.
            timeout: Seconds that a call may take that names no other time, and that connecting may take; None for no
                limit.

        Returns:
            The client, which is connected.

        Raises:
            ConnectionLost: No host can be reached, or none takes the key.
            ConfigurationError: The address, its options or the key cannot be used.
            TypeError, ValueError: ``timeout`` is not a number of seconds above 0.
        """
        if timeout is not None:
            check_timeout(timeout)
        client = cls(*_settings(address, key, Sending(bind, encrypt, compress)), timeout)
        await client._call_within(timeout, client._ready())
        return client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def get(self, key: str | bytes, *, timeout: Timeout = DEFAULT) -> bytes | None:
        """Read a key.

        Args:
            key: Text, or its bytes in UTF-8.
            timeout: Seconds that the call may take; the client's unless given, None for no limit.

        Returns:
            The value; None for a missing key.

        Raises:
            ServerError: The node has refused it: `PermissionDenied`, say.
            ConnectionLost: The connection ended before the answer.
            DeadlineExceeded: No answer came in time.
        """
        return await self._call(Opcode.GET, _encoded(key), b"", timeout)

    async def set(self, key: str | bytes, value: str | bytes, *, timeout: Timeout = DEFAULT) -> int:
        """Give a key a value. It is durable when this returns.

        Args:
            key: Text, or its bytes in UTF-8.
            value: Bytes, or text that is stored in UTF-8.
            timeout: As for ``get``.

        Returns:
            The key's new version.

        Raises:
            ServerError, ConnectionLost, DeadlineExceeded: As for ``get``. By the outcome of the last two it may have
                been applied.
        """
        name, content = _encoded(key), value.encode() if isinstance(value, str) else value
        refused = value_refusal(name.decode(), len(content))
        if refused is not None:
            raise refused.exception()
        version = await self._call(Opcode.SET, name, content, timeout)
        assert version is not None, "the connection refuses NOTFOUND for a set"
        return int.from_bytes(version, "big")

    async def delete(self, key: str | bytes, *, timeout: Timeout = DEFAULT) -> int | None:
        """Remove a key.

        Args:
            key: Text, or its bytes in UTF-8.
            timeout: As for ``get``.

        Returns:
            The version of the removal; None for a missing key.

        Raises:
            ServerError, ConnectionLost, DeadlineExceeded: As for ``set``.
        """
        version = await self._call(Opcode.DEL, _encoded(key), b"", timeout)
        return None if version is None else int.from_bytes(version, "big")

    async def aclose(self) -> None:
        """Close the connection. Calls in flight fail with `ConnectionLost`. Safe to call again."""
        self._check_loop()
        self._closed = True
        dialling = self._dialling
        if dialling is not None:
            dialling.cancel()
            with suppress(asyncio.CancelledError, ConnectionLost):
                await dialling
        every = [*self._retired, *([] if self._connection is None else [self._connection])]
        for connection in every:
            connection.close()
        for connection in every:
            await connection.closed

    # -- calls ------------------------------------------------------------------------------------------------------

    async def _call(self, opcode: Opcode, name: bytes, value: bytes, timeout: Timeout) -> bytes | None:
        """Send a request and return the value of its answer; None for NOTFOUND. Raises its error."""
        self._check_loop()
        if timeout is DEFAULT:
            timeout = self._timeout
        elif timeout is not None:
            check_timeout(timeout)
        begun = self._loop.time()
        connection = self._connection
        while connection is None or connection.lost is not None or connection.spent or not connection.has_room:
            left = None if timeout is None else timeout - (self._loop.time() - begun)
            if left is not None and left <= 0:
                raise _too_late(sent=False)
            connection = await self._call_within(left, self._ready())
            if not connection.has_room:
                await self._call_within(left, connection.room())
        future = connection.send(opcode, name, value)
        if timeout is None:
            result = await future
        else:
            late = self._loop.call_at(begun + timeout, _expire, future, opcode)
            try:
                result = await future
            finally:
                late.cancel()
        if isinstance(result, Failure):
            raise result.exception()
        return result

    async def _call_within(self, timeout: float | None, waiting: Awaitable[T]) -> T:
        """Wait for what a call needs before it is sent. Raises DeadlineExceeded."""
        try:
            async with asyncio.timeout(timeout):
                return await waiting
        except TimeoutError:
            raise _too_late(sent=False) from None

    async def _ready(self) -> MultiplexedConnection:
        """Return an open connection with ids left; dial if there is none. Calls that wait for one dial together."""
        if self._closed:
            raise ConnectionLost("the client is closed", outcome="not_applied")
        connection = self._connection
        if connection is not None and connection.lost is None and connection.home.present:
            if not connection.spent:
                return connection
            self._retire(connection)
        if self._dialling is None:
            self._dialling = self._loop.create_task(self._dial())
            self._dialling.add_done_callback(self._dialled)
        return await asyncio.shield(self._dialling)

    def _retire(self, connection: MultiplexedConnection) -> None:
        self._connection = None
        self._retired.add(connection)
        connection.closed.add_done_callback(lambda _: self._retired.discard(connection))
        connection.retire()

    def _dialled(self, dialling: asyncio.Task[MultiplexedConnection]) -> None:
        self._dialling = None
        if not dialling.cancelled() and dialling.exception() is None:
            self._connection = dialling.result()

    async def _dial(self) -> MultiplexedConnection:
        tls = None
        if self._address.tls:
            tls = context_to_dial(read_tls_files(self._address, None, listening=False), time.time())
        connection = await connect_first(
            self._address.places, partial(self._attempt, tls), self._timeout, discard=MultiplexedConnection.close
        )
        try:
            async with asyncio.timeout(self._timeout or TIMEOUT_S):
                await connection.bound
        except TimeoutError:
            connection.close()
            raise ConnectionLost("the other side does not answer BIND", outcome="not_applied") from None
        except BaseException:
            connection.close()
            raise
        return connection

    async def _attempt(self, tls: TlsContext | None, host: Place, address: Place) -> MultiplexedConnection:
        """Connect to one address of a host. With TLS that takes its handshake, too."""
        connection = MultiplexedConnection(self._key, self._sending, self._loop)
        if isinstance(address, str):
            await self._loop.create_unix_connection(lambda: connection, address)
        elif tls is None:
            await self._loop.create_connection(lambda: connection, *address)
        else:
            # The certificate has the name without the zone of an IPv6 address, which means something here alone.
            name = str(host[0]).partition("%")[0]
            try:
                transport = TlsTransport(lambda: connection, tls, lambda first: _FOREIGN, server_name=name)
            except ValueError as error:
                raise TlsFailed(f"no certificate can have its name: {error}", in_handshake=True) from error
            await self._loop.create_connection(lambda: transport, *address)
            async with asyncio.timeout(TLS_HANDSHAKE_S):
                await transport.wait_open()
        return connection

    def _check_loop(self) -> None:
        if running_loop() is not self._loop:
            raise wrong_loop(repr(self), self._loop)


def _settings(address: str, key: bytes | None, sending: Sending) -> tuple[Address, ConnectionKey, Sending]:
    """Return the checked settings of a client. Raises ``ConfigurationError``."""
    parsed = parse(address, (_PROTOCOL,))
    if parsed.user is not None:
        raise ConfigurationError(f"{parsed} has a user, and CAFE has none: the shared key stands for one")
    for name in parsed.options:
        if name in TLS_OPTIONS:
            check_tls_option(parsed, name, listening=False)
        elif name != KEY_FILE:
            raise ConfigurationError(f"{parsed}: the option {name!r} is not known to this version")
    path = parsed.options.get(KEY_FILE)
    if path is not None:
        if key is not None:
            raise ConfigurationError(f"{parsed}: the shared key is given in the address and beside it")
        key = read_shared_key(path)
    elif key is None:
        raise ConfigurationError(f"{parsed} has no {KEY_FILE}, and no shared key is given beside it")
    if sending.compress and not available():
        raise ConfigurationError(f"{parsed}: compression needs the extra: pip install 'haptera[zstd]'")
    if sending.encrypt and not can_encrypt():
        raise ConfigurationError(f"{parsed}: encryption needs the package cryptography: pip install 'haptera[server]'")
    return parsed, ConnectionKey(key), sending


def _encoded(key: str | bytes) -> bytes:
    """Return a key as it is sent. Raises 4006 for a text that is none, as the node would."""
    try:
        text = key.decode() if isinstance(key, bytes) else key
        if is_key(text):
            return text.encode()
        raise invalid_key(text).exception()
    except UnicodeDecodeError:
        raise failure(Code.INVALID_KEY, {"reason": "not UTF-8"}).exception() from None


def _expire(future: asyncio.Future[bytes | Failure | None], opcode: Opcode) -> None:
    """End a call whose time is over. Its answer is thrown away when it comes."""
    if not future.done():
        future.set_exception(_too_late(sent=opcode != Opcode.GET))


def _too_late(*, sent: bool) -> Exception:
    return failure(Code.DEADLINE_EXCEEDED, outcome="unknown" if sent else "not_applied").exception()
