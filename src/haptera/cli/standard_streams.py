"""The standard streams of a process whose starter may have closed them.

The kernel gives a new file or socket the lowest free descriptor. In a process that was started without descriptor 1,
the first connection would become standard output, and a result would be written into it. So `secure` occupies the
descriptors 0 to 2 before anything else is opened.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import sys
from io import FileIO
from typing import Final, TextIO

#: How a closed descriptor is opened on the null device. Standard input and output are opened the wrong way round,
#: because a command must see that it has none; text for standard error has no other place to go.
STANDARD: Final = {0: os.O_WRONLY, 1: os.O_RDONLY, 2: os.O_WRONLY}


def secure() -> None:
    """Occupy the standard descriptors that are closed, and give Python a stream for each."""
    for number, mode in STANDARD.items():
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, mode)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)


def trouble_with_output() -> str | None:
    """Why standard output certainly takes nothing, as far as that can be known before anything is written to it.

    A disk that is full shows only when something is written.
    """
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError):
        return None  # a stream in memory
    if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        return "standard output is closed"
    poll = select.poll()
    poll.register(number, select.POLLOUT)
    if any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0)):
        return "standard output has no reader"
    return None


def open_input() -> FileIO:
    """Standard input without a buffer of Python's, so that a thread that waits in it keeps no lock.

    Raises ``OSError`` where it is closed, which must not look like an input that is empty.
    """
    stream = FileIO(0, closefd=False)
    if fcntl.fcntl(0, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
        raise OSError(errno.EBADF, "it is closed")
    return stream


def is_output(name: str) -> bool:
    """Whether a file is standard output under a name of its own, such as /dev/stdout."""
    try:
        return os.path.samestat(os.stat(name), os.fstat(sys.stdout.fileno()))
    except (OSError, ValueError):
        return False


def silence(stream: TextIO) -> None:
    """Point a stream at the null device. Python writes the rest of the buffer at its end, and would fail again."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
    except (OSError, ValueError):
        pass
