"""Every dialect that a node can speak."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from haptera.dialects.cafe.cafe_dialect import Cafe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from haptera.node.frontend import Dialect

#: By the protocol that URLs name.
DIALECTS: Final[Mapping[str, Dialect]] = MappingProxyType({each.protocol: each for each in (Cafe(),)})
