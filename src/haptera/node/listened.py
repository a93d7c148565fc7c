"""The addresses that a node listens on, as their URLs say it, whichever protocol each is for."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from haptera import defaults
from haptera.errors import ConfigurationError
from haptera.node.frontend import read_dialect_options
from haptera.peer import read_listening_options
from haptera.transport import TCP_SCHEME, parse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from haptera.node.frontend import Dialect
    from haptera.transport import Address, TlsFiles

    Dialects = Mapping[str, Dialect]

#: Of a node that speaks its own protocol alone.
NO_DIALECTS: Final[Dialects] = MappingProxyType({})


class Listened(NamedTuple):
    """An address, with its files of TLS. ``signed`` says whether a key in the URL, or the keys of each exchange, prove
    each message, and ``signs_by_exchange`` whether it is those.
    """

    address: Address
    tls: TlsFiles | None
    signed: bool
    signs_by_exchange: bool


def parse_listener(url: str) -> Address:
    """Parse the URL of a listener: of the node's own protocol or a dialect's. Raises ConfigurationError."""
    return parse(url, tuple(defaults.PORTS))


def dialect_of(address: Address, dialects: Dialects) -> Dialect:
    """Return the dialect of an address. Raises ConfigurationError where the node has none for it."""
    dialect = dialects.get(address.protocol)
    if dialect is None:
        raise ConfigurationError(f"{address}: this node does not speak {address.protocol}")
    return dialect


def read_listened(url: str, dialects: Dialects) -> Listened:
    """Read the URL of a listener, and the files that it names. Raises ConfigurationError."""
    address = parse_listener(url)
    if address.protocol != TCP_SCHEME:
        dialect = dialect_of(address, dialects)
        settings, tls = read_dialect_options(dialect, address)
        return Listened(address, tls, dialect.is_signed(settings), signs_by_exchange=False)
    options = read_listening_options(address)
    signed = options.signs_by_exchange or options.signing_key is not None
    return Listened(address, options.tls, signed, options.signs_by_exchange)
