"""Settings in a served store: write, read, and change one without overwriting somebody else's change.

Start a node with `haptera serve`, then run this in the same directory (or with HAPTERA_URL set).
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import haptera


async def change(db: haptera.Database, key: str, **settings: Any) -> int:
    """Change some settings of ``key`` and keep the others, whoever else changes it meanwhile."""
    while True:
        entry = await db.get(key)
        old = json.loads(entry.value) if entry else {}
        version = entry.version if entry else 0  # 0: it must still be absent
        try:
            return await db.set(key, json.dumps(old | settings), if_version=version)
        except haptera.VersionMismatch:
            continue  # somebody was faster: read again


async def main() -> None:
    async with haptera.connect() as db:
        await db.set("settings/mail", json.dumps({"host": "mail.example", "port": 25}))

        # Twenty changes at once over one connection: none is lost.
        await asyncio.gather(*(change(db, "settings/mail", **{f"option-{n}": n}) for n in range(20)))

        async for entry in db.scan(prefix="settings/"):
            print(entry.key, "at version", entry.version, "has", len(json.loads(entry.value)), "settings")

        try:
            await db.set("settings/mail", "{}", if_absent=True)
        except haptera.KeyExists as error:
            print(error.name, error.outcome)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except haptera.ConnectionLost as error:
        sys.exit(f"{error}: is a node there?")
