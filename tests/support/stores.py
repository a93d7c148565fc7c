"""A database as a test opens it: of a served and of an embedded store."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal

import haptera
from haptera.testing import node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from haptera import Database

Kind = Literal["served", "embedded"]


@asynccontextmanager
async def opened(kind: Kind, directory: Path) -> AsyncIterator[Database]:
    if kind == "embedded":
        async with haptera.open(directory / "data", durability="os") as db:
            yield db
    else:
        async with node(storage="memory") as url, haptera.connect(url) as db:
            yield db
