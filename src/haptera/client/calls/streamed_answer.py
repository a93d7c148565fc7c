"""An answer that comes part by part, as an asynchronous iterator whose end has the result of the call."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Generic, Protocol, Self, TypeVar

if TYPE_CHECKING:
    from types import TracebackType

    from haptera.client.channels.channel import StreamEnd


class _OfRevision(Protocol):
    @property
    def revision(self) -> int: ...


Part = TypeVar("Part")
Result = TypeVar("Result", bound=_OfRevision)


class StreamedAnswer(Generic[Part, Result]):
    """The parts of an answer, all of one revision of the store. Its class says what an iteration gives."""

    __slots__ = ("_end", "_parts")

    def __init__(self, parts: AsyncGenerator[Part, None], end: StreamEnd[Result]) -> None:
        self._parts = parts
        self._end = end

    def __aiter__(self) -> Self:
        return self

    @property
    def revision(self) -> int | None:
        """The revision of the store that all of it is of; None before the end."""
        return None if self._end.result is None else self._end.result.revision

    async def aclose(self) -> None:
        """End the call, at the server too. Harmless after the end."""
        await self._parts.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
