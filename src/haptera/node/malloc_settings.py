"""The allocator of a node's process: memory goes back to the system when large answers have left."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping

#: Bytes from which a block is mapped by itself, and unmapped when it is freed. glibc raises this limit to the largest
#: block it has seen freed, up to 32 MiB, and keeps such blocks afterwards. A fixed limit costs the zeroing of new pages
#: for each larger block (a third of the speed of an answer of 8 MiB), so that it stands above the values that are
#: common.
LARGE_BLOCK_SIZE = 4 * 1024 * 1024

#: Bytes that are free at the end of the heap before they go back: twice the limit, as glibc has it by itself.
KEPT_SIZE_MAX = 2 * LARGE_BLOCK_SIZE

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_OWN_SETTINGS = ("MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def return_large_blocks(environment: Mapping[str, str] = os.environ) -> bool:
    """Fix both limits for this process, where its C library is glibc and its environment does not set them.

    Returns whether they are fixed. See mallopt(3).
    """
    if not sys.platform.startswith("linux") or any(name in environment for name in _OWN_SETTINGS):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library, such as musl
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK_SIZE) and mallopt(_M_TRIM_THRESHOLD, KEPT_SIZE_MAX))
