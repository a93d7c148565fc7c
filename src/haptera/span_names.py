"""The names in spans and metrics by OpenTelemetry's stable semantic conventions, and whether a program records them.

They are constants of the project's own, because a program without OpenTelemetry imports this module, too, and because
a name that the package of conventions renames would change the names that dashboards ask for.
"""

from __future__ import annotations

import sys
from asyncio import CancelledError
from typing import Any, Final

from haptera.errors import ServerError

#: The modules of the API with the spans and the metrics.
TRACE_API: Final = "opentelemetry.trace"
METRICS_API: Final = "opentelemetry.metrics"

#: The key of a context in which a span stands for the calls made in it. A call of a database has one span at its side,
#: however often it is sent.
STANDS_FOR_CALLS: Final = "haptera-stands-for-calls"

#: The name of the instrumentation, and of the system in its attributes.
SYSTEM: Final = "haptera"

RPC_SYSTEM_NAME: Final = "rpc.system.name"
RPC_METHOD: Final = "rpc.method"
RPC_STATUS_CODE: Final = "rpc.response.status_code"
#: A method that the service does not have: the name that a stranger makes up is no name of a span.
OTHER_METHOD: Final = "_OTHER"

DB_SYSTEM_NAME: Final = "db.system.name"
DB_NAMESPACE: Final = "db.namespace"
DB_OPERATION_NAME: Final = "db.operation.name"
DB_BATCH_SIZE: Final = "db.operation.batch.size"
DB_STATUS_CODE: Final = "db.response.status_code"
DB_DURATION: Final = "db.client.operation.duration"

SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"

#: The error of a call that its own program has cancelled.
CANCELLED: Final = "CANCELLED"


def is_recorded() -> bool:
    """Whether the program has set up a provider of spans or of metrics. The API's own ones record nothing."""
    tracing: Any = sys.modules.get(TRACE_API)
    metering: Any = sys.modules.get(METRICS_API)
    return (tracing is not None and not _is_of_the_api(tracing.get_tracer_provider(), TRACE_API)) or (
        metering is not None and not _is_of_the_api(metering.get_meter_provider(), METRICS_API)
    )


def _is_of_the_api(provider: object, api: str) -> bool:
    return type(provider).__module__.startswith(api)


def place_attributes(place: str | tuple[str, int] | None) -> dict[str, Any]:
    """Return the attributes for the place of a server: its host and port, or the path of its Unix socket."""
    if place is None:
        return {}
    if isinstance(place, str):
        return {SERVER_ADDRESS: place}
    return {SERVER_ADDRESS: place[0], SERVER_PORT: place[1]}


def error_type(error: BaseException) -> str:
    """Return the name of an error: that of its code where it has one, else that of its class."""
    if isinstance(error, CancelledError):
        return CANCELLED
    return error.name if isinstance(error, ServerError) else type(error).__name__
