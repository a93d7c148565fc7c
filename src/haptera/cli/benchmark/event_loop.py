"""Runs a coroutine on the event loop that a benchmark is for: uvloop's where it is installed, as `haptera serve`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` to its end."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(work)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def loop_name() -> str:
    """The implementation of the running loop: ``uvloop 0.23.0``, or ``asyncio``."""
    module = type(asyncio.get_running_loop()).__module__.partition(".")[0]
    if module != "uvloop":
        return "asyncio"
    from importlib.metadata import version

    return f"uvloop {version('uvloop')}"
