"""The version of Redis that clients are told.

Clients choose by it what they ask for: redis-py, for one, keeps a cache on its side from 7.4 on.
"""

from __future__ import annotations

from typing import Final

#: The commands that there are have the words and options of Redis 7, and those of 7.4 where that has more.
REDIS_VERSION: Final = "7.4.0"
