"""Spans of calls and requests, by the OpenTelemetry API where a program uses it (the extra ``haptera[otel]``).

A program that has not imported the API has set up nothing that could record a span, so that nothing is looked for, and
nothing costs anything: the calls of a handler then continue its request's trace by themselves.
"""

from __future__ import annotations

import sys
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from haptera.errors import Failure, ServerError
from haptera.peer.trace import Trace

if TYPE_CHECKING:
    import asyncio

    from haptera.peer.call import Answer, Call
    from haptera.peer.request import Request

_API: Final = "opentelemetry.trace"
_SYSTEM: Final = "haptera"


def find_telemetry() -> Telemetry | None:
    """Return the recorder of spans, if the program has the OpenTelemetry API in use."""
    return Telemetry() if _API in sys.modules else None


class Telemetry:
    """Begins and ends the spans of one connection."""

    def __init__(self) -> None:
        api: Any = import_module(_API)
        context: Any = import_module("opentelemetry.context")
        self._api = api
        self._attach = context.attach
        self._root = context.Context()
        self._tracer = api.get_tracer("haptera")
        self._spans: dict[int, Any] = {}  # of requests under way, by their streams

    def begin_call(self, call: Call) -> Trace | None:
        """Begin the span of a call that is about to be sent; it ends with the call. Return what the other side is
        told, if there is a trace.
        """
        service, method, _ = call.route
        span = self._begin(service, method, self._api.SpanKind.CLIENT, None)
        if span.is_recording():
            call.add_done_callback(partial(self._end_call, span))
        context = span.get_span_context()
        if not context.is_valid:
            return None
        trace = Trace(
            context.trace_id.to_bytes(16, "big"),
            context.span_id.to_bytes(8, "big"),
            int(context.trace_flags),
            context.trace_state.to_header(),
        )
        # Where nothing is set up to record spans, the API hands out the current one again.
        return trace.child() if context == self._api.get_current_span().get_span_context() else trace

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
        self._spans[request.stream] = self._begin(request.service, request.method, api.SpanKind.SERVER, context)

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
                self._fail(span, reason.name, reason.message)
            span.end()

    def _begin(self, service: str, method: str, kind: Any, context: Any) -> Any:
        attributes = {"rpc.system": _SYSTEM, "rpc.service": service, "rpc.method": method}
        return self._tracer.start_span(f"{service}/{method}", context, kind, attributes)

    def _end_call(self, span: Any, call: asyncio.Future[Answer]) -> None:
        if call.cancelled():
            self._fail(span, "CANCELLED", "the call was cancelled")
        else:
            error = call.exception()
            if error is not None:
                span.record_exception(error)
                self._fail(span, error.name if isinstance(error, ServerError) else type(error).__name__, str(error))
            else:
                reason = call.result().failure
                if reason is not None:
                    self._fail(span, reason.name, reason.message)
        span.end()

    def _fail(self, span: Any, name: str, message: str) -> None:
        span.set_attribute("error.type", name)
        span.set_status(self._api.Status(self._api.StatusCode.ERROR, message))
