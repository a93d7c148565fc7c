"""The options of TLS in a URL: ``cert=&key=&tls_min=1.2|1.3``, to dial ``ca=``, and to listen ``client_ca=&crl=``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn

from haptera.errors import ConfigurationError
from haptera.transport.tls_context import TLS_VERSION_DEFAULT, TLS_VERSIONS, TlsFiles

if TYPE_CHECKING:
    from haptera.transport.address import Address

_OF_DIALLING: Final = frozenset({"ca"})
_OF_LISTENING: Final = frozenset({"client_ca", "crl"})
#: All of them; the ones in neither set are for both sides.
TLS_OPTIONS: Final = frozenset({"cert", "key", "tls_min"}) | _OF_DIALLING | _OF_LISTENING


def check_tls_option(address: Address, name: str, *, listening: bool) -> None:
    """Raise ``ConfigurationError`` for an option of TLS that means nothing in this URL."""
    if not address.tls:
        _refuse(address, f"{name} is an option of {address.protocol}s://, the URL of TLS")
    if name in (_OF_DIALLING if listening else _OF_LISTENING):
        _refuse(address, f"{name} is an option of the {'dialling' if listening else 'listening'} side")
    if not address.options[name]:
        _refuse(address, f"{name} has no value")
    if name == "tls_min" and address.options[name] not in TLS_VERSIONS:
        _refuse(address, f"tls_min is {' or '.join(TLS_VERSIONS)}, not {address.options[name]!r}")


def read_tls_files(address: Address, alpn: str | None, *, listening: bool) -> TlsFiles:
    """Return the files that a URL of TLS names, whose options are checked. Raises ``ConfigurationError``.

    ``alpn`` is the name of the protocol inside; None where its clients name none.
    """
    given = address.options
    certificate, key = given.get("cert"), given.get("key")
    if listening and (certificate is None or key is None):
        _refuse(address, "TLS needs cert=FILE and key=FILE, the certificate of the listener and its key")
    if (certificate is None) != (key is None):
        _refuse(address, "cert and key belong together: the certificate and its key")
    if "crl" in given and "client_ca" not in given:
        _refuse(address, "crl lists revoked certificates of client_ca, which is missing")
    return TlsFiles(
        listening=listening,
        certificate=certificate,
        key=key,
        authorities=given.get("client_ca" if listening else "ca"),
        revoked=given.get("crl"),
        oldest_version=given.get("tls_min", TLS_VERSION_DEFAULT),
        alpn=alpn,
    )


def _refuse(address: Address, reason: str) -> NoReturn:
    raise ConfigurationError(f"{address}: {reason}")
