"""The fixtures that the tests of the inventory share."""

from __future__ import annotations

import pytest

import haptera
from inventory import Inventory


@pytest.fixture
async def inventory(haptera_db: haptera.Database) -> Inventory:
    """Give an inventory in a store of the test's own, with ten apples."""
    made = Inventory(haptera_db)
    await made.stock("apple", 10)
    return made
