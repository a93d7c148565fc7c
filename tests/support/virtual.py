"""The loop and the network of a test on virtual time, with their own types."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from haptera.testing import VirtualClockLoop

if TYPE_CHECKING:
    from haptera.testing import Network


def loop() -> VirtualClockLoop:
    """The loop that runs, which is one on virtual time."""
    running = asyncio.get_running_loop()
    assert isinstance(running, VirtualClockLoop)
    return running


def network() -> Network:
    """The network of that loop."""
    return loop().network
