"""The watches of a node: they follow the changes of a key or of the keys with a prefix (spec/protocol.md 7)."""

from __future__ import annotations

from haptera.node.watches.feed import Feed, LocalFeed
from haptera.node.watches.follower import Follower
from haptera.node.watches.watches import Watches

__all__ = ["Feed", "Follower", "LocalFeed", "Watches"]
