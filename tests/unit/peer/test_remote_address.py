"""The process at the other end of a Unix socket, as each system tells."""

from __future__ import annotations

import struct
import sys
from typing import TYPE_CHECKING, Any

import pytest

from haptera.peer.remote_address import Credentials, of_macos

if TYPE_CHECKING:
    from collections.abc import Mapping


class Told:
    """A socket with these options, by their numbers."""

    def __init__(self, options: Mapping[int, bytes]) -> None:
        self._options = options

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        assert level == 0
        if option not in self._options:
            raise OSError
        return self._options[option][:size]


# struct xucred of <sys/ucred.h>: version, uid, number of groups, and 16 of them.
XUCRED = struct.pack("=IIhxx16I", 0, 501, 2, 20, 12, *[0] * 14)
PID = (4321).to_bytes(4, sys.byteorder)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({1: XUCRED, 2: PID}, Credentials(4321, 501, 20)),
        ({1: XUCRED[:40], 2: PID}, None),
        ({2: PID}, None),
        ({1: XUCRED}, None),
    ],
)
def test_the_process_as_macos_tells_it(options: Any, found: Credentials | None) -> None:
    sock: Any = Told(options)
    assert of_macos(sock) == found
