"""The shortages for which the operating system refuses a file or its bytes: what is used up, and how more is had."""

from __future__ import annotations

import errno
from typing import Final, NamedTuple

from haptera.errors import Code, Failure, failure

__all__ = ["Shortage", "no_room", "shortage_of"]


class Shortage(NamedTuple):
    """``reason`` says what is used up, and ``help`` the next step of the operator."""

    reason: str
    help: str


_DESCRIPTORS: Final = "raise `ulimit -n`, or LimitNOFILE of systemd, or lower --max-connections"

_SHORTAGES: Final = {
    errno.ENOSPC: Shortage("the disk is full", "make room on the disk"),
    errno.EDQUOT: Shortage("the disk quota is used up", "make room within the quota, or raise it"),
    errno.EFBIG: Shortage("the limit on the size of a file is met", "raise `ulimit -f`, or LimitFSIZE of systemd"),
    errno.EMFILE: Shortage("the process has no free file descriptor", _DESCRIPTORS),
    errno.ENFILE: Shortage("the machine has no free file descriptor", "raise the sysctl fs.file-max"),
}


def shortage_of(number: int) -> Shortage:
    """The shortage that an errno stands for, one of those of `haptera.storage.DiskFull`."""
    return _SHORTAGES[number]


def no_room(number: int) -> Failure:
    """5002 for a shortage, with a message of its own where something else than the disk is used up."""
    message = None if number == errno.ENOSPC else shortage_of(number).reason
    return failure(Code.STORAGE_FULL, outcome="not_applied", message=message)
