"""The command of redis-cli that the greeting of `haptera serve` shows where a node speaks RESP."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Final

from haptera.defaults import PORTS
from haptera.node import parse_listener

_RESP: Final = "resp"
#: The host of redis-cli by itself, for a listener there and for one at every address of the machine.
_OWN_HOSTS: Final = ("127.0.0.1", "localhost", "0.0.0.0")  # noqa: S104  # compared with, not listened on
_EVERY_IPV6: Final = "::"


def redis_command(urls: Iterable[str], user: str | None) -> str | None:
    """Return a command to try that reaches the first listener for RESP, as ``user`` with its password asked for; None
    where there is no such listener.
    """
    address = next((each for each in map(parse_listener, urls) if each.protocol == _RESP), None)
    if address is None:
        return None
    words = ["redis-cli"]
    if address.hosts:
        host, port = address.hosts[0]
        if host not in _OWN_HOSTS:
            words += ["-h", "::1" if host == _EVERY_IPV6 else host]
        if port != PORTS[_RESP]:
            words += ["-p", str(port)]
    else:
        words += ["-s", address.path]
    if address.tls:
        words.append("--tls")
    if user is not None:
        words += ["--user", user, "--askpass"]
    return shlex.join([*words, "ping"])
