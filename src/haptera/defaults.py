"""The default place of a store: a node listens there and keeps its data there, and a client looks there."""

from __future__ import annotations

from typing import Final

PORT: Final = 7457
#: The port of each protocol that a node speaks: its own, and those of its dialects.
PORTS: Final = {"haptera": PORT, "resp": 6379, "cafe": 7777}
URL: Final = f"haptera://127.0.0.1:{PORT}"

#: Below the present directory.
DATA_DIRECTORY: Final = "haptera-data"

#: The socket in a data directory on which the node listens for this machine.
SOCKET_NAME: Final = "haptera.sock"
