"""Facts about a node that dialects tell their callers."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any, Final, TypeVar

from haptera.node.process_facts import ProcessFacts, process_facts

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from haptera.node.config import NodeConfig
    from haptera.node.frontend.frontend_connection import FrontendConnection
    from haptera.node.node import Node

Kept = TypeVar("Kept")


class Facts:
    """The facts that a dialect may tell about its node, and the place of the things that its connections share.

    ``connections`` gives the connections of all dialects.
    """

    __slots__ = ("_kept", "_node", "_numbers", "connections")

    def __init__(self, node: Node, connections: Callable[[], Collection[FrontendConnection]]) -> None:
        self._node = node
        self._numbers = count(1)
        self.connections: Final = connections
        self._kept: dict[type, Any] = {}

    def kept(self, kind: type[Kept]) -> Kept:
        """The one object of a class that the connections of a dialect share; it is made when it is first asked for."""
        found: Kept | None = self._kept.get(kind)
        if found is None:
            found = self._kept[kind] = kind()
        return found

    def next_number(self) -> int:
        """The number of a new connection of a dialect: each has another one."""
        return next(self._numbers)

    @property
    def config(self) -> NodeConfig:
        """The configuration of the node."""
        return self._node.config

    @property
    def node_id(self) -> bytes:
        """16 bytes, chosen when the data directory was made."""
        return self._node.node_id

    @property
    def server_id(self) -> bytes:
        """The 16 bytes under which the store is served."""
        return self._node.server_id

    @property
    def uptime_ms(self) -> int:
        """Milliseconds since the node began to open."""
        return self._node.uptime_ms

    @property
    def revision(self) -> int:
        """The store's applied revision."""
        return self._node.revision

    @property
    def keys(self) -> int:
        """How many keys there are."""
        return self._node.keys

    @property
    def connected(self) -> int:
        """How many connections the node has, of all protocols."""
        return self._node.connections

    def clock_ms(self) -> int:
        """The wall clock: Unix time in milliseconds."""
        return self._node.clock_ms()

    def read_time_ms(self) -> int:
        """The time by which keys expire for reads, in Unix milliseconds."""
        return self._node.read_time_ms()

    def metrics(self) -> dict[str, float]:
        """The values of all metrics now, by name (spec/metrics.toml)."""
        return self._node.metrics.values()

    @property
    def failed(self) -> bool:
        """Whether the node cannot write any more."""
        return self._node.failed.done()

    def process(self) -> ProcessFacts:
        """The process of the node, as the system sees it."""
        return process_facts()
