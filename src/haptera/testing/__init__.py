"""What users' tests and ours share: peers and files in memory, and virtual time.

    connected_peers, Link               two peers, or two asyncio protocols, on a connection in memory
    run, virtual_clock                  an event loop whose time jumps to the next timer
    MemoryFileSystem                    files that can fail and lose what was not synced

A name is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from haptera.testing.clock import NotSimulated, Stalled, VirtualClockLoop, run, virtual_clock
    from haptera.testing.filesystem import Crashed, MemoryFile, MemoryFileSystem, Unsynced
    from haptera.testing.network import MemoryServer, Network
    from haptera.testing.peers import ConnectedPeers, connected_peers
    from haptera.testing.traffic import Direction
    from haptera.testing.transport import Link, MemoryTransport

__all__ = [
    "ConnectedPeers",
    "Crashed",
    "Direction",
    "Link",
    "MemoryFile",
    "MemoryFileSystem",
    "MemoryServer",
    "MemoryTransport",
    "Network",
    "NotSimulated",
    "Stalled",
    "Unsynced",
    "VirtualClockLoop",
    "connected_peers",
    "run",
    "virtual_clock",
]

_MODULES: Final = {
    **dict.fromkeys(("NotSimulated", "Stalled", "VirtualClockLoop", "run", "virtual_clock"), "clock"),
    **dict.fromkeys(("Crashed", "MemoryFile", "MemoryFileSystem", "Unsynced"), "filesystem"),
    **dict.fromkeys(("MemoryServer", "Network"), "network"),
    **dict.fromkeys(("ConnectedPeers", "connected_peers"), "peers"),
    "Direction": "traffic",
    **dict.fromkeys(("Link", "MemoryTransport"), "transport"),
}


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module 'haptera.testing' has no attribute {name!r}")
    value = getattr(import_module(f"haptera.testing.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
