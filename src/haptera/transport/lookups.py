"""Names and their addresses, as the system's resolver knows them.

A resolver that does not answer keeps a thread for half a minute, beyond its caller's timeout. So a lookup has a
thread of its own, and takes none of the loop's executor: the program's other work goes on there, and the end of the
loop waits for no resolver. All callers that wait for a name share one lookup.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from haptera.transport.limits import LOOKUPS_MAX

#: The answer of ``getaddrinfo``: family, kind, protocol, canonical name, socket address.
AddressInfo = tuple[Any, ...]
Addresses = Sequence[AddressInfo]
_Name = tuple[str, int]
_Lookups = dict[_Name, asyncio.Future[Addresses]]

#: Lookups under way, by their loop. A name is there once, and only while a thread works on it.
_lookups: WeakKeyDictionary[asyncio.AbstractEventLoop, _Lookups] = WeakKeyDictionary()


async def look_up(host: str, port: int) -> Addresses:
    """Return the addresses of a name, from a lookup that may have begun for others, and goes on for others.

    Raises ``OSError`` and, for text that cannot be a name, ``UnicodeError``.
    """
    loop = asyncio.get_running_loop()
    lookups = _lookups.setdefault(loop, {})
    name = host, port
    while (lookup := lookups.get(name)) is None:
        if len(lookups) < LOOKUPS_MAX:
            lookup = _begin(lookups, name, loop)
            break
        await asyncio.wait(lookups.values(), return_when=asyncio.FIRST_COMPLETED)
    return await asyncio.shield(lookup)


def under_way() -> int:
    """Return how many lookups of the running loop have a thread."""
    return len(_lookups.get(asyncio.get_running_loop(), ()))


def _begin(lookups: _Lookups, name: _Name, loop: asyncio.AbstractEventLoop) -> asyncio.Future[Addresses]:
    lookup: asyncio.Future[Addresses] = loop.create_future()
    # A daemon, because a process ends without waiting for one.
    thread = threading.Thread(target=_resolve, args=(lookups, name, lookup), name="haptera-lookup", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, "there is no thread for the lookup") from error
    lookups[name] = lookup
    return lookup


def _resolve(lookups: _Lookups, name: _Name, lookup: asyncio.Future[Addresses]) -> None:
    """Look a name up, in a thread, and hand the result to its loop."""
    try:
        end = partial(lookup.set_result, socket.getaddrinfo(*name, type=socket.SOCK_STREAM))
    except Exception as error:
        end = partial(lookup.set_exception, error)
    try:
        lookup.get_loop().call_soon_threadsafe(_end, lookups, name, lookup, end)
    except RuntimeError:  # the loop is closed, and forgotten with its last lookup
        lookups.pop(name, None)


def _end(lookups: _Lookups, name: _Name, lookup: asyncio.Future[Addresses], end: partial[None]) -> None:
    del lookups[name]
    end()
    lookup.exception()  # it is no loss if no caller waits for it any longer
