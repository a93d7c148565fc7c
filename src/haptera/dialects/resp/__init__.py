"""RESP, the protocol of Redis: its requests and replies, the session of one connection, and the commands.

A command is one row of a table (`command_table`), with a handler that turns its arguments into operations of the store
and their results into a reply. `session` runs the commands of a connection in order. Nothing here listens, judges a
permission or keeps a key: that is the node's, for each protocol (`haptera.node.frontend`).
"""

from __future__ import annotations

from haptera.dialects.resp.resp_dialect import RespDialect

__all__ = ["RespDialect"]
