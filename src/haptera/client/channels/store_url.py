"""Which store a client talks to: its URL, checked, and the secrets in it never shown."""

from __future__ import annotations

import os
from dataclasses import dataclass

import msgspec

from haptera import defaults
from haptera.client.channels.local_node import local_url
from haptera.errors import ConfigurationError
from haptera.peer import read_options
from haptera.transport import Address, parse, redact

URL_VARIABLE = "HAPTERA_URL"


def has_password(url: str) -> bool:
    """Whether a URL carries a password, readable or not."""
    try:
        return parse(url).password is not None
    except ConfigurationError:
        return redact(url) != url


def default_url() -> str:
    """``HAPTERA_URL``, else the socket of a node that runs in this directory, else the default port here.

    Raises ``ConfigurationError`` for a socket that another user has put there.
    """
    return os.environ.get(URL_VARIABLE) or local_url() or defaults.URL


def is_named() -> bool:
    """Whether the environment names the store."""
    return bool(os.environ.get(URL_VARIABLE))


@dataclass(frozen=True)
class Location:
    """Where a store is. The client dials ``address``; ``shown`` is safe for logs and errors; ``timeout`` is the URL's
    own default for calls in seconds, or None if it names none.
    """

    address: Address
    shown: str
    timeout: float | None


def locate(url: str, *, ping_interval: float | None = None) -> Location:
    """Read a URL such as ``haptera://a:7457,b:7457?timeout=2`` or ``haptera+unix:///run/haptera.sock``.

    The options that are for the connection, ``ping_interval``, ``compression``, ``signed`` and ``key_file``, stay in
    ``address``; ``ping_interval`` in seconds takes the place of the URL's. Raises
    ``ConfigurationError`` for a URL that cannot be read, for an option that this client does not have, and for a user
    or a password: this version does not authenticate, and to leave a credential out silently would let a caller believe
    that it acts as that user.
    """
    address = parse(url)
    shown = str(address)
    if address.password is not None:
        raise ConfigurationError(f"{shown}: this version has no authentication, so the URL may not carry a password")
    if address.user is not None:
        raise ConfigurationError(f"{shown}: this version has no authentication, so the URL may not name a user")
    if ping_interval is not None:
        replaced = {**address.options, "ping_interval": str(ping_interval)}
        address = msgspec.structs.replace(address, options=replaced)
    options = read_options(address)
    kept = {name: value for name, value in address.options.items() if name != "timeout"}
    return Location(msgspec.structs.replace(address, options=kept), shown, options.timeout)
