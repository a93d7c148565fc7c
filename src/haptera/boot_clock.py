"""The clock that no one sets and that goes on while the machine sleeps. On Linux it is not `time.monotonic`."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio


def _choose() -> Callable[[], int]:
    if not hasattr(time, "clock_gettime_ns"):
        return time.monotonic_ns
    return partial(time.clock_gettime_ns, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


#: Return the nanoseconds since any moment.
boot_time_ns: Final[Callable[[], int]] = _choose()


def boot_time_ns_of(loop: asyncio.AbstractEventLoop) -> int:
    """The same for what runs on a loop. One with a virtual time has this clock, too."""
    own: Callable[[], int] = getattr(loop, "boot_time_ns", boot_time_ns)
    return own()
