"""The node that runs in the present directory: trusted without being named, so only where no one else can stand in.

A client without a URL uses ``./haptera-data/haptera.sock``. Another user with write access to that directory could have
put a server of its own there, and would read the requests. So the socket, and the directory that it is in, must belong
to this user or to root. So must the process that listens, by the kernel's word, because files may be changed between a
look at them and the connection. A URL that is given is trusted as it is.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NoReturn

import msgspec

from haptera import defaults
from haptera.client.channels.dial_store import dial_store
from haptera.errors import ConfigurationError
from haptera.peer import Peer, link_of
from haptera.transport import parse, url_of

if TYPE_CHECKING:
    from haptera.peer import Dial
    from haptera.transport import Address

SOCKET = os.path.join(defaults.DATA_DIRECTORY, defaults.SOCKET_NAME)
_ROOT = 0


def local_url(directory: str = "") -> str | None:
    """The URL of the socket of a node that runs in a directory, by default the present one; None if there is no socket.

    Raises ``ConfigurationError`` for one that another user owns, or could have replaced.
    """
    socket = os.path.join(directory, SOCKET)
    if not os.path.exists(socket):
        return None  # and a present directory that was removed has no path
    path = os.path.abspath(socket)
    _check(path)
    return url_of(path)


async def dial_local(address: Address, /, *, timeout: float) -> Peer:
    """Connect as `dial_store` does. Raises ``ConfigurationError``, with nothing sent, if another user's process
    listens.
    """
    peer = await dial_store(address, timeout=timeout)
    listening = peer.credentials
    if listening is not None and not _trusted(listening.uid):
        link_of(peer).abort()
        _refuse(address.path, f"a process of {_user(listening.uid)} listens on it")
    return peer


def dial_when_found() -> Dial:
    """Return how a client dials that has found no node in the present directory, and waits for one.

    Each attempt looks there again, so that a program may start before its node does. The directory is that of now: a
    program that goes to another one is not led to another store.
    """
    try:
        directory = os.getcwd()
    except FileNotFoundError:  # it was removed
        return dial_store

    async def dial(address: Address, /, *, timeout: float) -> Peer:
        url = local_url(directory)
        if url is None:
            return await dial_store(address, timeout=timeout)
        found = msgspec.structs.replace(parse(url), options=address.options)
        return await dial_local(found, timeout=timeout)

    return dial


def _check(path: str) -> None:
    directory = os.path.dirname(path)
    try:
        for place in (directory, path):
            # A link is checked itself, and so is the file that it leads to.
            for found in (os.lstat(place), os.stat(place)):
                if not _trusted(found.st_uid):
                    _refuse(path, f"{place} belongs to {_user(found.st_uid)}")
        mode = os.stat(directory).st_mode
    except FileNotFoundError:
        return  # it has gone meanwhile: connecting says so
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        _refuse(path, f"every user may write in {directory}")


def _trusted(uid: int) -> bool:
    return uid in {os.geteuid(), _ROOT}


def _refuse(path: str, reason: str) -> NoReturn:
    raise ConfigurationError(
        f"the node in this directory is not used, because {reason}; if that is meant, name it: --url {url_of(path)},"
        " or HAPTERA_URL in the environment"
    )


def _user(uid: int) -> str:
    import pwd  # noqa: PLC0415  # for an error alone

    try:
        return f"the user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"the user with the id {uid}"
