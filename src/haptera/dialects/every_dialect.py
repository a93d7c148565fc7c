"""Every dialect that a node can speak."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from haptera.dialects.cafe.cafe_dialect import Cafe
from haptera.dialects.resp.resp_dialect import RespDialect

if TYPE_CHECKING:
    from collections.abc import Mapping

    from haptera.node.frontend import Dialect

#: By the protocol that URLs name.
DIALECTS: Final[Mapping[str, Dialect]] = MappingProxyType({each.protocol: each for each in (RespDialect(), Cafe())})
