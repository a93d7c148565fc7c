"""Methods of services whose arguments and answers are values of the program's types, as their annotations name them."""

from __future__ import annotations

import inspect
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from contextlib import aclosing
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, get_args, get_origin, get_type_hints

from haptera.errors import Code, Failure, failure
from haptera.value_codecs import CodecName, Misfit, ValueCodec

if TYPE_CHECKING:
    from haptera.peer.request import Request

#: A method takes the service and the request, and may take an argument.
_WITHOUT_ARGUMENT: Final = 2
_WITH_ARGUMENT: Final = 3
_ITEMS: Final = (AsyncIterator, AsyncGenerator, AsyncIterable)
_ITEMS_IN_THREADS: Final = (Iterator, Generator, Iterable)


class TypedMethod:
    """Decodes the argument of a method and encodes its answers.

    Args:
        function: The method, unbound: a plain function of a service for threads, else a coroutine function.
        codec: The codec of its service.

    Raises:
        TypeError: It takes other parameters, or a type is not annotated, or its values cannot be encoded.
    """

    __slots__ = ("_answer", "_argument", "_name", "_streams")

    def __init__(self, function: Callable[..., Any], codec: CodecName) -> None:
        self._name = function.__qualname__
        in_threads = inspect.isgeneratorfunction(function)
        self._streams = in_threads or inspect.isasyncgenfunction(function)
        parameters = list(inspect.signature(function).parameters.values())
        if len(parameters) not in {_WITHOUT_ARGUMENT, _WITH_ARGUMENT}:
            raise TypeError(f"{self._name} takes a request and at most one argument")
        wanted = {parameter.name: parameter.annotation for parameter in parameters[_WITHOUT_ARGUMENT:]}
        hints = self._resolved(function, {**wanted, "return": inspect.signature(function).return_annotation})
        answer = hints.pop("return")
        if self._streams:
            if get_origin(answer) not in (_ITEMS_IN_THREADS if in_threads else _ITEMS):
                name = "Iterator" if in_threads else "AsyncIterator"
                raise TypeError(f"{self._name} yields items: annotate it with {name}[...] of their type")
            answer = get_args(answer)[0]
        self._argument: ValueCodec[Any] | None = None
        for argument in hints.values():
            self._argument = ValueCodec(argument, codec)
        #: None for a method that answers with no value.
        self._answer: ValueCodec[Any] | None = None if answer in {None, type(None)} else ValueCodec(answer, codec)

    def _resolved(self, function: Callable[..., Any], wanted: dict[str, Any]) -> dict[str, Any]:
        """The types of some annotations. Others, of the request for instance, may stand under ``TYPE_CHECKING``."""
        for name, annotation in wanted.items():
            if annotation is inspect.Parameter.empty:
                raise TypeError(f"{self._name}: the type of {name} is not annotated")
        annotations = SimpleNamespace(__annotations__=wanted)
        try:
            return get_type_hints(annotations, globalns=function.__globals__)
        except NameError as error:
            raise TypeError(
                f"{self._name}: {error}; the types of arguments and answers are imported or defined at the top of the "
                "module, before the service"
            ) from None

    def bound(self, request: Request, function: Callable[..., Any]) -> Callable[[Request], Any] | Failure:
        """The handler of one request, which takes and gives bytes; or the failure of an argument that does not fit."""
        try:
            arguments = self._taken(request)
        except Misfit as misfit:
            return failure(Code.INVALID_ARGUMENT, {"reason": str(misfit)})

        def run_one(request: Request) -> Awaitable[bytes]:
            return self._answered(function(request, *arguments))

        def run_stream(request: Request) -> AsyncGenerator[bytes, None]:
            return self._items(function(request, *arguments))

        return run_stream if self._streams else run_one

    def _taken(self, request: Request) -> tuple[Any, ...]:
        if self._argument is not None:
            return (self._argument.decode(request.payload),)
        if request.payload:
            raise Misfit("the method takes no argument")
        return ()

    async def _answered(self, result: Awaitable[Any]) -> bytes:
        return self._encoded(await result)

    async def _items(self, results: AsyncGenerator[Any, None]) -> AsyncGenerator[bytes, None]:
        async with aclosing(results):
            async for item in results:
                yield self._encoded(item)

    def _encoded(self, value: Any) -> bytes:
        """The bytes of an answer. A handler whose answer has another type has failed."""
        if self._answer is None:
            if value is not None:
                raise TypeError(f"{self._name} answers with {type(value).__name__}, not with None")
            return b""
        try:
            return self._answer.encode(value)
        except Misfit as misfit:
            raise TypeError(
                f"{self._name} answers with a value that does not fit {self._answer.name}: {misfit}"
            ) from None
