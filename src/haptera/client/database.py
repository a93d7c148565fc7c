"""The database as an application sees it, served or embedded: its calls, its beginning and its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, TypeVar

from haptera.client.calls.access_calls import AccessCalls
from haptera.client.calls.change_calls import ChangeCalls
from haptera.client.calls.key_calls import KeyCalls
from haptera.client.calls.lease_calls import LeaseCalls
from haptera.client.calls.pipeline_calls import PipelineCalls
from haptera.client.calls.recipe_calls import RecipeCalls
from haptera.client.calls.store_calls import StoreCalls
from haptera.client.calls.transaction_calls import TransactionCalls
from haptera.transport import warn_unclosed

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import TracebackType

    from haptera.client.channels.channel import Channel
    from haptera.client.typed.typed_database import TypedDatabase
    from haptera.value_codecs import CodecName

T = TypeVar("T")


class Database(
    KeyCalls, TransactionCalls, PipelineCalls, ChangeCalls, LeaseCalls, RecipeCalls, StoreCalls, AccessCalls
):
    """A key-value store. Made by :func:`haptera.connect` or :func:`haptera.open`; use it as ``async with … as db``.

    Any number of calls may be under way at once (``asyncio.gather``), in no order. Keys are ``str``, values ``str``
    (stored as UTF-8) or bytes. Each call takes ``timeout`` in seconds: the database's own unless given, None for no
    limit.

    Every call may raise ``ServerError`` (one subclass for each code, such as ``VersionMismatch``),
    ``DeadlineExceeded`` when its time is over, ``ConnectionLost`` when the server cannot be reached or was lost and
    sending the call again might apply it twice, and ``RemoteProtocolError`` when the answer is malformed. ``outcome``
    of the first three says whether a change was applied. ``TypeError`` and ``ValueError`` mean a mistake in the call. A
    served and an embedded store refuse the same call with the same error. Where a server refuses the connection the
    ``ConnectionLost`` is of the class of its reason, too: ``TooManyConnections``, for instance.

    A database belongs to the event loop that first used it: on another one it raises ``WrongLoop``, and begins afresh
    if the first is closed.
    """

    def __init__(self, channel: Channel, name: str, timeout: float | None) -> None:
        super().__init__(channel, timeout)
        self._name = name

    def typed(self, of: type[T], *, codec: CodecName = "json") -> TypedDatabase[T]:
        """Give the values of some calls a type: ``configs = db.typed(Config)``.

            >>> import msgspec
            >>> class Config(msgspec.Struct):
            ...     host: str
            ...     port: int = 80
            >>> configs = db.typed(Config)
            >>> _ = await configs.set("web", Config("10.0.0.7"))
            >>> (await configs.get("web")).value
            Config(host='10.0.0.7', port=80)

        Args:
            of: The type of the values: a Struct of msgspec, a dataclass, a model of pydantic, or a type made of the
                plain ones, ``list[int]`` for instance.
            codec: The form in which they are stored, ``"json"`` or ``"msgpack"``.

        Returns:
            The calls that have values, with that type.

        Raises:
            TypeError: Values of the type cannot be stored.
            ValueError: There is no such codec.
        """
        from haptera.client.typed.typed_database import TypedDatabase  # noqa: PLC0415 - few programs need it at once
        from haptera.value_codecs import ValueCodec  # noqa: PLC0415

        return TypedDatabase(self, ValueCodec(of, codec))

    async def drain(self, *, timeout: float = 30.0) -> None:
        """Take no more calls, wait for the ones under way, and close.

        Args:
            timeout: Seconds to wait at most.
        """
        await self._channel.drain(timeout)
        await self._leave_leases()

    async def aclose(self) -> None:
        """Close. Calls under way end with ``ConnectionLost``, and leases that are open are lost. Harmless when closed
        already.
        """
        await self._channel.aclose()
        await self._leave_leases()

    def __await__(self) -> Generator[Any, Any, Self]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> Self:
        await self._channel.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        channel: Channel | None = getattr(self, "_channel", None)  # None after an error in __init__
        if channel is not None and channel.unclosed:
            warn_unclosed(self, f"haptera.Database {self._name}")

    def __repr__(self) -> str:
        return f"<haptera.Database {self._name}>"
