"""Temporary directories for the sockets of a test."""

from __future__ import annotations

import os
import tempfile
from typing import Final

#: Bytes of a directory's path, so that the path of a socket in it fits into the 104 that every system takes.
_PATH_SIZE_MAX: Final = 90


def socket_directory() -> str:
    """Make a new directory for Unix sockets, whose paths may not be long."""
    path = tempfile.mkdtemp(prefix="haptera-")
    if len(os.fsencode(path)) > _PATH_SIZE_MAX:
        os.rmdir(path)
        path = tempfile.mkdtemp(prefix="haptera-", dir="/tmp")  # made with mode 0700 under a new name
    return path
