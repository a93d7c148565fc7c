"""Spans of calls and requests, by the OpenTelemetry API where a program uses it (the extra ``haptera[otel]``).

A program that has not imported the API has set up nothing that could record a span, so that nothing is looked for, and
nothing costs anything: the calls of a handler then continue its request's trace by themselves.
"""

from __future__ import annotations

import sys
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from haptera.errors import Code, Failure, ServerError
from haptera.peer.trace import Trace
from haptera.span_names import (
    CANCELLED,
    ERROR_TYPE,
    OTHER_METHOD,
    RPC_METHOD,
    RPC_STATUS_CODE,
    RPC_SYSTEM_NAME,
    STANDS_FOR_CALLS,
    SYSTEM,
    TRACE_API,
    error_type,
    place_attributes,
)

if TYPE_CHECKING:
    import asyncio

    from haptera.peer.call import Answer, Call
    from haptera.peer.request import Request
    from haptera.transport import Place


def find_telemetry() -> Telemetry | None:
    """Return the recorder of spans, if the program has the OpenTelemetry API in use."""
    return Telemetry() if TRACE_API in sys.modules else None


class Telemetry:
    """Begins and ends the spans of one connection."""

    def __init__(self) -> None:
        api: Any = import_module(TRACE_API)
        context: Any = import_module("opentelemetry.context")
        self._api = api
        self._attach = context.attach
        self._root = context.Context()
        self._value_of = context.get_value
        self._tracer = api.get_tracer(SYSTEM)
        self._place: dict[str, Any] = {}
        self._spans: dict[int, Any] = {}  # of requests under way, by their streams

    def dialled(self, place: Place | None) -> None:
        """Note the server at the other side, which each call then names."""
        self._place = place_attributes(place)

    def begin_call(self, call: Call) -> Trace | None:
        """Begin the span of a call that is about to be sent; it ends with the call. Return what the other side is
        told, if there is a trace.
        """
        span = self._value_of(STANDS_FOR_CALLS)
        if span is None or span is not self._api.get_current_span():
            service, method, _ = call.route
            span = self._begin(service, method, self._api.SpanKind.CLIENT, None, self._place)
            if span.is_recording():
                call.add_done_callback(partial(self._end_call, span))
        elif span.is_recording():
            return self._told(span.get_span_context())
        context = span.get_span_context()
        if not context.is_valid:
            return None
        trace = self._told(context)
        # Where nothing is set up to record spans, the API hands out the current one again.
        return trace.child() if context == self._api.get_current_span().get_span_context() else trace

    @staticmethod
    def _told(context: Any) -> Trace:
        return Trace(
            context.trace_id.to_bytes(16, "big"),
            context.span_id.to_bytes(8, "big"),
            int(context.trace_flags),
            context.trace_state.to_header(),
        )

    def begin_request(self, request: Request) -> None:
        """Begin the span of a request that is about to be handled, behind the span of its caller."""
        api = self._api
        context = self._root
        trace = request.trace
        if trace is not None:
            parent = api.SpanContext(
                int.from_bytes(trace.trace_id, "big"),
                int.from_bytes(trace.parent_id, "big"),
                is_remote=True,
                trace_flags=api.TraceFlags(trace.flags),
                trace_state=api.TraceState.from_header([trace.state]),
            )
            context = api.set_span_in_context(api.NonRecordingSpan(parent), context)
        self._spans[request.stream] = self._begin(request.service, request.method, api.SpanKind.SERVER, context, {})

    def enter(self, request: Request) -> None:
        """Make a request's span the current one for the rest of this task."""
        span = self._spans.get(request.stream)
        if span is not None:
            self._attach(self._api.set_span_in_context(span, self._root))

    def record(self, request: Request, error: BaseException) -> None:
        """Note the exception of a handler."""
        span = self._spans.get(request.stream)
        if span is not None:
            span.record_exception(error)

    def end_request(self, request: Request, reason: Failure | None) -> None:
        """End the span of a request that is answered; ``reason`` is the error that it is answered with."""
        span = self._spans.pop(request.stream, None)
        if span is not None:
            if reason is not None:
                self._refuse(span, reason)
                if reason.code == Code.UNKNOWN_METHOD:
                    span.update_name(OTHER_METHOD)
                    span.set_attribute(RPC_METHOD, OTHER_METHOD)
            span.end()

    def _begin(self, service: str, method: str, kind: Any, context: Any, place: dict[str, Any]) -> Any:
        name = f"{service}/{method}"
        return self._tracer.start_span(name, context, kind, {RPC_SYSTEM_NAME: SYSTEM, RPC_METHOD: name, **place})

    def _end_call(self, span: Any, call: asyncio.Future[Answer]) -> None:
        if call.cancelled():
            self._fail(span, CANCELLED, "the call was cancelled")
        else:
            error = call.exception()
            if error is not None:
                span.record_exception(error)
                if isinstance(error, ServerError):
                    span.set_attribute(RPC_STATUS_CODE, str(error.code))
                self._fail(span, error_type(error), str(error))
            else:
                reason = call.result().failure
                if reason is not None:
                    self._refuse(span, reason)
        span.end()

    def _refuse(self, span: Any, reason: Failure) -> None:
        """Note an error that was answered. A missing key is an answer, and no error."""
        span.set_attribute(RPC_STATUS_CODE, str(reason.code))
        if reason.code != Code.KEY_NOT_FOUND:
            self._fail(span, reason.name, reason.message)

    def _fail(self, span: Any, name: str, message: str) -> None:
        span.set_attribute(ERROR_TYPE, name)
        span.set_status(self._api.Status(self._api.StatusCode.ERROR, message))
