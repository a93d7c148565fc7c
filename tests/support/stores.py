"""A database as a test opens it: of a served and of an embedded store."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Literal

import haptera
import haptera.sync
from haptera.testing import node, node_in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
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


@contextmanager
def opened_in_thread(kind: Kind, directory: Path) -> Iterator[haptera.sync.Database]:
    if kind == "embedded":
        with haptera.sync.open(directory / "data", durability="os") as db:
            yield db
    else:
        with node_in_thread(storage="memory") as url, haptera.sync.connect(url) as db:
            yield db
