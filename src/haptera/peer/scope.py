"""On whose behalf calls are made: what a handler's own calls inherit from its request.

A context variable names the request whose handler runs. Tasks that a handler starts have it too; nothing is inherited
any longer once the request has been answered. Callbacks run in the context in which they were registered, which may be
that of another request's handler: whoever starts a handler sets the variable anew.
"""

from contextvars import ContextVar
from typing import Final, Protocol

from haptera.peer.trace import Trace


class Scope(Protocol):
    """A request, as what the calls of its handler inherit from."""

    #: When its time is over, as time of the loop, if its caller says so.
    deadline: float | None

    @property
    def trace(self) -> Trace | None:
        """The trace that it belongs to."""

    @property
    def under_way(self) -> bool:
        """Whether its answer is still owed."""


#: The request that is being handled; None outside of handlers, and in one whose request gives nothing to inherit.
current: Final[ContextVar[Scope | None]] = ContextVar("haptera_request", default=None)


def enter(request: Scope) -> None:
    """Let the rest of this task be the handler of ``request``."""
    current.set(request if request.deadline is not None or request.trace is not None else None)
