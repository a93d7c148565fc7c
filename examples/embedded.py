"""A store inside the program: no server, the same calls, the same durability.

It counts how often it was run, and remembers when. Give it a directory: python examples/embedded.py ./state
"""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime

import haptera


async def main(directory: str) -> None:
    async with haptera.open(directory) as db:
        number = await db.increment("runs")
        await db.set(f"run/{number:06}", datetime.now(UTC).isoformat(timespec="seconds"))
        print(f"run {number}")
        async for entry in db.scan(prefix="run/", reverse=True, limit=3):
            print(entry.key, entry.text)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "./state"))
