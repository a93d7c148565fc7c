"""The second process works in short pieces and rests between them while the others leave no processor free.

Its low priority is not enough. The scheduler keeps it on a processor of its own as long as it runs, and puts the node
and its callers, which wake each other, together on another one: on two processors each request then waits for another.
Where it sleeps every few milliseconds, the others spread again. Where a processor is free, it works without a rest.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

#: Seconds of a piece of work, and of the rest behind it. The others wait for no more than a piece. Where they leave
#: nothing, although this process rests, the rests are longer: it takes the tenth that its niceness would leave it.
WORK_S: Final = 0.001
REST_S: Final = 0.002
LONG_REST_S: Final = 0.009
#: Seconds between two looks at the processors.
LOOK_S: Final = 0.1
#: So much of a processor has to be free beside this process. Not a whole one: the kernel itself takes a little of it.
FREE_MIN: Final = 0.9
#: Of all processors together, less of one than this is nothing.
IDLE_MIN: Final = 0.1

_STAT: Final = "/proc/stat"
_TICKS: Final = os.sysconf("SC_CLK_TCK")


def idle_seconds() -> float:
    """Seconds that the processors of this process have been idle, all of them together since the boot.

    Raises OSError and ValueError where the system does not tell.
    """
    own = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    ticks = 0
    with open(_STAT, encoding="ascii") as file:
        for line in file:
            name, *times = line.split()
            if not name.startswith("cpu"):
                break
            if name in own:
                ticks += int(times[3]) + int(times[4])  # idle, and idle while a disk is waited for
    return ticks / _TICKS


class Pace:
    """Says from time to time whether to rest. Time is given by ``now``, the processors' idle time by ``idle``, and the
    time that this process has used by ``used``, all in seconds.
    """

    def __init__(
        self,
        idle: Callable[[], float] = idle_seconds,
        used: Callable[[], float] = time.process_time,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._idle = idle
        self._used = used
        self._now = now
        #: Seconds of rest behind each piece of work.
        self.rest_s: float = LONG_REST_S  # until the processors are known
        self._last = (now(), idle(), used())

    def look(self) -> float:
        """Seconds to rest now, or 0."""
        now = self._now()
        passed = now - self._last[0]
        if passed >= LOOK_S:
            idle, used = self._idle(), self._used()
            # A rest leaves this process's own processor idle, which would be busy without it.
            own = max(0.0, 1.0 - (used - self._last[2]) / passed)
            free = (idle - self._last[1]) / passed
            self.rest_s = 0.0 if free - own >= FREE_MIN else REST_S if free >= IDLE_MIN else LONG_REST_S
            self._last = now, idle, used
        return self.rest_s


def keep_pace() -> None:
    """Let this process rest between its pieces of work from now on, where it shares several processors with others.

    The main thread's work is interrupted for it by SIGALRM, which the process must not use for anything else.
    """
    if not sys.platform.startswith("linux") or len(os.sched_getaffinity(0)) < 2:
        return  # on a single processor the priority is enough
    try:
        pace = Pace()
    except (OSError, ValueError, IndexError):  # the system does not tell
        return

    def rest(_number: int, _frame: FrameType | None) -> None:
        try:
            rest_s = pace.look()
        except (OSError, ValueError, IndexError):
            return
        if rest_s:
            time.sleep(rest_s)
        signal.setitimer(signal.ITIMER_REAL, WORK_S if rest_s else LOOK_S)

    # The interpreter gives signals back to the system when it ends, and this one would end the process.
    atexit.register(signal.signal, signal.SIGALRM, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, rest)
    signal.setitimer(signal.ITIMER_REAL, WORK_S)
