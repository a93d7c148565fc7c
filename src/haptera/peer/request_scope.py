"""The request on whose behalf calls are made, and from which a handler's own calls inherit.

A context variable names the request whose handler runs. Tasks that a handler starts have it too; nothing is inherited
any longer once the request has been answered. Callbacks run in the context in which they were registered, which may be
another request's. For that reason the variable is set again wherever a handler starts.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from haptera.peer.request import Request

#: The request that is being handled; None outside of handlers, and in one whose request gives nothing to inherit.
current: Final[ContextVar[Request | None]] = ContextVar("haptera_request", default=None)
