"""Calls of a peer whose arguments and answers are values of the program's types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Self, TypeVar

from haptera.errors import UnexpectedValue
from haptera.value_codecs import CodecName, Misfit, ValueCodec, codec_of

if TYPE_CHECKING:
    from types import TracebackType

    from haptera.errors import Outcome
    from haptera.peer.call import Answer, CallStream

T = TypeVar("T")


class TypedAnswers(Generic[T]):
    """The codec of one call: of its argument, and of its answer or the items of that."""

    __slots__ = ("_codec", "_method", "_of", "_service")

    def __init__(self, service: str, method: str, codec: CodecName, of: type[T] | None) -> None:
        self._service = service
        self._method = method
        self._codec = codec
        self._of: ValueCodec[T] | None = None if of is None else codec_of(of, codec)

    def sent(self, argument: object) -> bytes:
        """The bytes of the argument; none for ``b""``. Raises ``UnexpectedValue`` for one that its class refuses."""
        if argument == b"":
            return b""
        codec = codec_of(type(argument), self._codec)
        try:
            return codec.encode(argument)
        except Misfit as misfit:
            raise self._unexpected("the argument", codec.name, misfit, "not_applied") from None

    def received(self, payload: bytes, outcome: Outcome) -> T | None:
        """The value of an answer or an item. Raises ``UnexpectedValue`` for bytes that do not fit."""
        if self._of is None:
            if payload:
                raise self._unexpected("the answer", "None", Misfit("it has a value"), outcome)
            return None
        return self.item(payload, outcome)

    def item(self, payload: bytes, outcome: Outcome) -> T:
        """As `received`, of a call that names the type of its answers."""
        assert self._of is not None
        try:
            return self._of.decode(payload)
        except Misfit as misfit:
            raise self._unexpected("the answer", self._of.name, misfit, outcome) from None

    def _unexpected(self, part: str, type_name: str, misfit: Misfit, outcome: Outcome) -> UnexpectedValue:
        return UnexpectedValue(
            f"{part} of {self._service}.{self._method}",
            type_name,
            str(misfit),
            outcome,
            service=self._service,
            method=self._method,
        )


class TypedCallStream(Generic[T]):
    """A `CallStream` whose items are values of the program's type. An item that does not fit raises ``UnexpectedValue``
    in its turn.
    """

    __slots__ = ("_answers", "_items")

    def __init__(self, items: CallStream, answers: TypedAnswers[T]) -> None:
        self._items = items
        self._answers = answers

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        return self._answers.item(await anext(self._items), "unknown")

    @property
    def answer(self) -> Answer | None:
        """The terminal answer, once the items have ended."""
        return self._items.answer

    async def aclose(self) -> None:
        """Cancel the call if it has not ended."""
        await self._items.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
