"""Dialects: other protocols in front of the same store, each a codec and a table from its commands to the node's.

A dialect knows ``haptera.node.commands``, the command interface, ``haptera.node.frontend``, the node's part in each of
its connections, and ``haptera.transport``.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from haptera.dialects.resp import RespDialect

if TYPE_CHECKING:
    from collections.abc import Mapping

    from haptera.node.frontend import Dialect

#: Every dialect, by the protocol that URLs name.
DIALECTS: Final[Mapping[str, Dialect]] = MappingProxyType({"resp": RespDialect()})

__all__ = ["DIALECTS"]
