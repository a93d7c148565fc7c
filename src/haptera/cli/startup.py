"""The first code of the command line, as the installed ``haptera`` and ``python -m haptera`` run it.

It stands before the imports of the commands, which take tenths of a second: a node that is told to stop meanwhile ends
with 0, as it does at any later time.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn


def stop_signals() -> list[signal.Signals]:
    """Return the signals that ask a node to stop. A hang-up is one unless it was ignored from the start (nohup)."""
    asked = [signal.SIGTERM, signal.SIGINT]
    return asked if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [*asked, signal.SIGHUP]


def has_terminal() -> bool:
    """Whether the process has a terminal that can close. One that has closed is none any longer."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _end(*_: object) -> NoReturn:
    """End the process: it has opened nothing yet, and owes nothing."""
    os._exit(0)


def main() -> NoReturn:
    """Run the command line with the process's own arguments, and end the process."""
    if sys.argv[1:2] == ["serve"]:
        for number in stop_signals():
            signal.signal(number, _end)
    from haptera.cli.main import main

    main()
