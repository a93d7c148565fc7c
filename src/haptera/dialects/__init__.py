"""Dialects: other protocols in front of the same store, each a codec and a table from its commands to the node's.

A dialect knows ``haptera.node.commands``, the command interface, ``haptera.node.frontend``, the node's part in each of
its connections, and ``haptera.transport``. A client of one knows ``haptera.transport`` alone, so the names here are
imported when they are first used: a client loads nothing that only a node needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from haptera.lazy import lazily

if TYPE_CHECKING:
    from haptera.dialects.cafe.multiplexed_client import MultiplexedClient
    from haptera.dialects.every_dialect import DIALECTS

__all__ = ["DIALECTS", "MultiplexedClient"]

if not TYPE_CHECKING:  # a type checker would take it to mean that any name is there
    __getattr__ = lazily(
        __name__,
        {
            "DIALECTS": "haptera.dialects.every_dialect",
            "MultiplexedClient": "haptera.dialects.cafe.multiplexed_client",
        },
    )
