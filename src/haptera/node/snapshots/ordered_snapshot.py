"""The work of the second process: its order comes in, one snapshot is made, and the process ends with it.

The order comes from standard input, which stays open as long as the node lives: at its end this process ends at once.
It does not look at the directory's lock, which the node holds. It only reads the log's sealed segments and the
snapshots, and writes one new snapshot.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Final, NoReturn

from haptera.node.snapshots.messages import (
    LINE_SIZE_MAX,
    Failed,
    FurtherOn,
    Message,
    Order,
    decode_order,
    encode,
    failure_of,
)
from haptera.node.snapshots.priority import end_with_parent

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds between two signs of progress.
PROGRESS_INTERVAL_S: Final = 1.0

_STDIN, _STDOUT = 0, 1


def carry_out(path: str) -> NoReturn:
    """Make the snapshot that standard input orders, in the data directory `path`, and end the process."""
    order = _order()
    end_with_parent(order.parent)
    threading.Thread(target=_end_with_input, daemon=True).start()
    gc.disable()  # the state is millions of objects and no cycle, and this process ends with it
    message = _make(path, order)
    _tell(message)
    # At once: to free a large state, object by object, takes longer than to give the memory back as a whole.
    os._exit(1 if isinstance(message, Failed) else 0)


def _make(path: str, order: Order) -> Message:
    from haptera.node.logging import configure_logging  # noqa: PLC0415  # the node watches this process by now
    from haptera.node.snapshots.making import make_snapshot  # noqa: PLC0415
    from haptera.storage import DataKey, Keyring, OsFileSystem  # noqa: PLC0415

    configure_logging("warning", "text")
    keyring = Keyring(DataKey.of(bytes.fromhex(key)) for key in order.keys)
    damaged: list[int] = []
    try:
        return make_snapshot(OsFileSystem(), path, keyring, order.point, order.events_size, _progress(), damaged)
    except Exception as error:
        return failure_of(error, damaged)


def _progress() -> Callable[[], None]:
    """A function that says that there is progress, however often it is called."""
    told = time.monotonic()

    def progress() -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= PROGRESS_INTERVAL_S:
            told = now
            _tell(FurtherOn())

    return progress


def _order() -> Order:
    data = b""
    while not data.endswith(b"\n"):
        piece = os.read(_STDIN, LINE_SIZE_MAX)
        data += piece
        if not piece or len(data) > LINE_SIZE_MAX:
            sys.exit("this program makes a snapshot for a node, which starts it; `haptera snapshot` asks for one")
    return decode_order(data)


def _tell(message: Message) -> None:
    data = encode(message) + b"\n"
    while data:
        data = data[os.write(_STDOUT, data) :]


def _end_with_input() -> None:
    with contextlib.suppress(OSError):
        while os.read(_STDIN, 1):
            pass
    os._exit(1)
