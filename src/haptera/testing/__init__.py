"""Tools that users' tests and ours share: nodes, peers and files in memory, virtual time, and a proxy that can be cut.

    node, node_in_thread                a whole node in this process (extra: ``haptera[server]``)
    proxy, Proxy                        cuts, black holes, delays, damage and counts between two real ends
    connected_peers, MemoryLink         two peers, or two asyncio protocols, on a connection in memory
    run, virtual_clock                  an event loop whose time jumps to the next timer
    MemoryFileSystem                    files that can fail and lose unsynced bytes
    Recording, replay                   the bytes that passed through a proxy, and sending them again

The pytest fixtures are in `haptera.testing.plugin`, which pytest finds by itself. A name is imported when it is first
used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.lazy import lazily

if TYPE_CHECKING:
    from haptera.testing.clock import NotSimulated, Stalled, VirtualClockLoop, run, virtual_clock
    from haptera.testing.filesystem import Crashed, MemoryFile, MemoryFileSystem, Unsynced
    from haptera.testing.network import MemoryServer, Network
    from haptera.testing.nodes import NodeUrl, node, node_in_thread
    from haptera.testing.peers import ConnectedPeers, connected_peers
    from haptera.testing.proxies import Proxy, proxy
    from haptera.testing.recording import Piece, Recording, replay
    from haptera.testing.traffic import Direction
    from haptera.testing.transport import MemoryLink, MemoryTransport

__all__ = [
    "ConnectedPeers",
    "Crashed",
    "Direction",
    "MemoryFile",
    "MemoryFileSystem",
    "MemoryLink",
    "MemoryServer",
    "MemoryTransport",
    "Network",
    "NodeUrl",
    "NotSimulated",
    "Piece",
    "Proxy",
    "Recording",
    "Stalled",
    "Unsynced",
    "VirtualClockLoop",
    "connected_peers",
    "node",
    "node_in_thread",
    "proxy",
    "replay",
    "run",
    "virtual_clock",
]

_MODULES: Final = {
    **dict.fromkeys(("NotSimulated", "Stalled", "VirtualClockLoop", "run", "virtual_clock"), "clock"),
    **dict.fromkeys(("Crashed", "MemoryFile", "MemoryFileSystem", "Unsynced"), "filesystem"),
    **dict.fromkeys(("MemoryServer", "Network"), "network"),
    **dict.fromkeys(("NodeUrl", "node", "node_in_thread"), "nodes"),
    **dict.fromkeys(("ConnectedPeers", "connected_peers"), "peers"),
    **dict.fromkeys(("Proxy", "proxy"), "proxies"),
    **dict.fromkeys(("Piece", "Recording", "replay"), "recording"),
    "Direction": "traffic",
    **dict.fromkeys(("MemoryLink", "MemoryTransport"), "transport"),
}


if not TYPE_CHECKING:  # a type checker would take it to mean that any name is there
    __getattr__ = lazily(__name__, {name: f"haptera.testing.{module}" for name, module in _MODULES.items()})


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
