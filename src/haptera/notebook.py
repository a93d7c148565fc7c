"""Help for notebooks and prompts: tables of the results of scans and watches.

from haptera.notebook import table

table([entry async for entry in db.scan(prefix="fruit/")])
"""

from __future__ import annotations

from haptera.client import table

__all__ = ["table"]
