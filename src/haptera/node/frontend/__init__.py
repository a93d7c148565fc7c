"""The front of a node for dialects: their listeners and connections, and the callers at the other end.

A dialect turns bytes into commands and results into bytes. All else about a connection is the node's, and the same for
each dialect: listening, TLS, the bounds of connections and memory, time-outs, logins, rates, the audit log, metrics.
"""

from __future__ import annotations

from haptera.node.frontend.caller import DialectCaller
from haptera.node.frontend.dialect import Dialect, DialectSession
from haptera.node.frontend.facts import Facts
from haptera.node.frontend.frontend_connection import FrontendConnection
from haptera.node.frontend.frontend_server import FrontendServer, read_dialect_options
from haptera.node.frontend.gateway import Gateway

__all__ = [
    "Dialect",
    "DialectCaller",
    "DialectSession",
    "Facts",
    "FrontendConnection",
    "FrontendServer",
    "Gateway",
    "read_dialect_options",
]
