"""Spans and durations of a database's calls, by the OpenTelemetry API where a program records them (``haptera[otel]``).

A database whose program records neither has its channel as it is: no call of it passes this file.

A call has one span at its client, from the moment at which it is made to its result, however often it is sent. The
span's place in the trace goes along, so that a server which records spans puts its own behind it. The page
docs/observability.md lists the attributes.
"""

from __future__ import annotations

import time
from asyncio import CancelledError
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, TypeVar

from haptera import span_names
from haptera.client.calls.change_calls import ChangeMethods
from haptera.client.calls.key_calls import KvMethods
from haptera.client.calls.methods import ServerMethods
from haptera.errors import Code, ConnectionLost, Failure, ServerError
from haptera.transport import parse

if TYPE_CHECKING:
    from haptera.client.calls.methods import BackedUp, Method, Row, Scanned
    from haptera.client.channels.calls_under_way import UnderWay
    from haptera.client.channels.channel import Channel, StreamEnd
    from haptera.client.watches.watched import Happened, WatchPosition
    from haptera.transport import Place

R = TypeVar("R")
T = TypeVar("T")

#: The bounds of the histogram's buckets in seconds, as the conventions advise.
_BUCKETS_S: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
#: The place of the list in the arguments of methods that have many operations in one.
_LISTS: Final = {
    KvMethods.get_many: 0,
    KvMethods.set_many: 0,
    KvMethods.delete_many: 0,
    KvMethods.transact: 1,
}
#: By the conventions one operation is no batch.
_BATCH_MIN: Final = 2


class _Operation:
    """One call: its span, and the attributes that its duration has, too."""

    __slots__ = ("_attach", "_detach", "attributes", "context", "description", "seconds", "span")

    def __init__(self, span: Any, context: Any, context_api: Any, attributes: dict[str, Any]) -> None:
        self.span = span
        self.context = context
        self.attributes = attributes
        #: The text of its error.
        self.description = ""
        #: How long the program has waited for it so far.
        self.seconds = 0.0
        self._attach, self._detach = context_api.attach, context_api.detach

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the span the current one, for a step of the call that one task waits for."""
        begun = time.perf_counter()
        token = self._attach(self.context)
        try:
            yield
        finally:
            self._detach(token)
            self.seconds += time.perf_counter() - begun

    def refused(self, refusal: Failure) -> None:
        """Note the answer of the server. A missing key is an answer, and no error."""
        self.attributes[span_names.DB_STATUS_CODE] = str(refusal.code)
        if refusal.code != Code.KEY_NOT_FOUND:
            self._fail(refusal.name, refusal.message)

    def failed(self, error: BaseException) -> None:
        """Note an error that ends it without an answer, or a stream."""
        if isinstance(error, ServerError):
            self.attributes[span_names.DB_STATUS_CODE] = str(error.code)
        elif isinstance(error, ConnectionLost) and error.failure is not None:
            self.attributes[span_names.DB_STATUS_CODE] = str(error.failure.code)
        text = "the call was cancelled" if isinstance(error, CancelledError) else str(error)
        self._fail(span_names.error_type(error), text)

    def _fail(self, name: str, description: str) -> None:
        self.attributes[span_names.ERROR_TYPE] = name
        self.description = description


class TracedChannel:
    """Carries calls over another channel, and records each of them.

    ``place`` is the server, or the first of several; None for a store in this process.
    """

    def __init__(self, channel: Channel, place: Place | None) -> None:
        self._channel = channel
        self._served = place is not None
        self._place = span_names.place_attributes(place)
        self._reached: str | None = None
        self._api: Any = import_module(span_names.TRACE_API)
        self._context_api: Any = import_module("opentelemetry.context")
        self._tracer = self._api.get_tracer(span_names.SYSTEM)
        meter: Any = import_module(span_names.METRICS_API).get_meter(span_names.SYSTEM)
        self._durations = meter.create_histogram(
            span_names.DB_DURATION,
            unit="s",
            description="Duration of the calls of a database, sent again or not",
            explicit_bucket_boundaries_advisory=_BUCKETS_S,
        )

    # -- the calls --------------------------------------------------------------------------------------------------

    async def call(
        self, method: Method[R], argument: tuple[Any, ...], timeout: float | None, server_id: bytes | None = None
    ) -> R | Failure:
        """Make one call, as the channel beneath does."""
        operation = self._begin(method, argument)
        try:
            with operation.current():
                result = await self._channel.call(method, argument, timeout, server_id)
            if type(result) is Failure:
                operation.refused(result)
            return result
        except BaseException as error:
            operation.failed(error)
            raise
        finally:
            self._end(operation)

    def scan(
        self, options: dict[str, Any], end: StreamEnd[Scanned], page_timeout: float | None, timeout: float | None
    ) -> AsyncGenerator[list[Row], None]:
        """The pages of a scan."""
        return self._steps(KvMethods.scan, self._channel.scan(options, end, page_timeout, timeout))

    def backup(
        self, end: StreamEnd[BackedUp], piece_timeout: float | None, timeout: float | None
    ) -> AsyncGenerator[bytes, None]:
        """The pieces of a backup."""
        return self._steps(ServerMethods.backup, self._channel.backup(end, piece_timeout, timeout))

    def watch(self, position: WatchPosition, timeout: float | None) -> AsyncGenerator[list[Happened], None]:
        """The events of a watch."""
        return self._steps(ChangeMethods.watch, self._channel.watch(position, timeout), endless=True)

    async def _steps(
        self, method: Method[Any], parts: AsyncGenerator[T, None], *, endless: bool = False
    ) -> AsyncGenerator[T, None]:
        """The parts of an answer. Between them the span is not the current one, because the program's own code runs.

        The answer that a program leaves early is no error, nor is an ``endless`` one that is cancelled: it has no other
        end. Of an endless one no duration is recorded.
        """
        operation = self._begin(method, ())
        try:
            while True:
                with operation.current():
                    part = await anext(parts, None)
                if part is None:
                    break
                yield part
        except GeneratorExit:
            raise
        except BaseException as error:
            if not (endless and isinstance(error, CancelledError)):
                operation.failed(error)
            raise
        finally:
            try:
                with operation.current():
                    await parts.aclose()
            finally:
                self._end(operation, endless=endless)

    # -- their records ----------------------------------------------------------------------------------------------

    def _begin(self, method: Method[Any], argument: tuple[Any, ...]) -> _Operation:
        attributes = {
            span_names.DB_SYSTEM_NAME: span_names.SYSTEM,
            span_names.DB_NAMESPACE: method.service,
            span_names.DB_OPERATION_NAME: method.name,
            **self._place,
        }
        place = _LISTS.get(method)
        size = 0 if place is None else len(argument[place])
        kind = self._api.SpanKind.CLIENT if self._served else self._api.SpanKind.INTERNAL
        batch = {span_names.DB_BATCH_SIZE: size} if size >= _BATCH_MIN else {}
        span = self._tracer.start_span(f"{method.name} {method.service}", None, kind, {**attributes, **batch})
        context = self._context_api.set_value(span_names.STANDS_FOR_CALLS, span, self._api.set_span_in_context(span))
        return _Operation(span, context, self._context_api, attributes)

    def _end(self, operation: _Operation, *, endless: bool = False) -> None:
        self._find_place()
        attributes, span = operation.attributes, operation.span
        attributes.update(self._place)
        if not endless:
            self._durations.record(operation.seconds, attributes, operation.context)
        span.set_attributes(attributes)
        if span_names.ERROR_TYPE in attributes:
            span.set_status(self._api.Status(self._api.StatusCode.ERROR, operation.description))
        span.end()

    def _find_place(self) -> None:
        """Learn which of several servers has answered."""
        reached = self._channel.reached
        if self._served and reached is not None and reached != self._reached:
            self._reached = reached
            self._place = span_names.place_attributes(parse(reached).places[0])

    # -- everything else ---------------------------------------------------------------------------------------------

    @property
    def revision(self) -> int:
        """That of the last answer."""
        return self._channel.revision

    @revision.setter
    def revision(self, revision: int) -> None:
        self._channel.revision = revision

    @property
    def converting(self) -> UnderWay:
        """The calls that are about to be made."""
        return self._channel.converting

    @property
    def server_id(self) -> bytes | None:
        """The id of the server that has answered last."""
        return self._channel.server_id

    @property
    def private(self) -> bool:
        """Whether strangers cannot read the calls."""
        return self._channel.private

    @property
    def sends_at_once(self) -> bool:
        """No: the span of a call stands in the context of its task."""
        return False

    @property
    def closed(self) -> bool:
        """Whether no more calls are taken."""
        return self._channel.closed

    @property
    def unclosed(self) -> bool:
        """Whether something is open that stays open until `aclose`."""
        return self._channel.unclosed

    @property
    def reached(self) -> str | None:
        """The server that has answered last."""
        return self._channel.reached

    @property
    def connected_once(self) -> bool:
        """Whether a call may have been sent."""
        return self._channel.connected_once

    async def start(self) -> None:
        """Open the store, where the channel opens one."""
        await self._channel.start()

    async def drain(self, timeout: float) -> None:
        """Take no more calls, wait for the ones under way, and close."""
        await self._channel.drain(timeout)

    async def aclose(self) -> None:
        """Close."""
        await self._channel.aclose()
