"""Addresses: the URLs that name where to listen and where to dial (spec/protocol.md, section 1)."""

from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from haptera.errors import ConfigurationError

DEFAULT_PORT: Final = 7457
TCP_SCHEME: Final = "haptera"
UNIX_SCHEME: Final = "haptera+unix"
_SCHEMES: Final = (TCP_SCHEME, UNIX_SCHEME)


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed URL. ``hosts`` is empty for a Unix socket, ``path`` for TCP; the password never shows in ``repr``."""

    scheme: str
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    user: str | None = None
    password: str | None = None
    options: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"Address({str(self)!r})"

    def __str__(self) -> str:
        """Return the URL, its password as ``***``."""
        credential = ""
        if self.user is not None:
            credential = self.user + (":***" if self.password is not None else "") + "@"
        place = self.path if self.scheme == UNIX_SCHEME else ",".join(format_host(*host) for host in self.hosts)
        query = "?" + "&".join(f"{name}={value}" for name, value in self.options.items()) if self.options else ""
        return f"{self.scheme}://{credential}{place}{query}"


def format_host(host: str, port: int) -> str:
    """Return ``host:port``, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse(url: str) -> Address:
    """Parse a Haptera URL.

    Several hosts may be given, separated by commas. Raises ``ConfigurationError``, which shows no password.
    """
    shown = redact(url)
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigurationError(f"{shown!r} is not a URL: {error}") from None
    if parts.scheme not in _SCHEMES:
        raise ConfigurationError(f"{shown!r} does not begin with {' or '.join(f'{each}://' for each in _SCHEMES)}")
    if parts.fragment:
        raise ConfigurationError(f"{shown!r} has a fragment (#…), which means nothing here")
    credential, _, place = parts.netloc.rpartition("@")
    user, colon, password = credential.partition(":")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    common = {
        "user": unquote(user) if credential else None,
        "password": unquote(password) if colon else None,
    }
    if parts.scheme == UNIX_SCHEME:
        path = unquote(place + parts.path)
        if not path.startswith("/"):
            raise ConfigurationError(f"{shown!r} names no absolute path; write {UNIX_SCHEME}:///path/to/socket")
        return Address(scheme=UNIX_SCHEME, path=path, options=options, **common)
    if parts.path not in ("", "/"):
        raise ConfigurationError(f"{shown!r} has a path, which means nothing for TCP")
    hosts = tuple(_parse_host(each, shown) for each in place.split(","))
    return Address(scheme=TCP_SCHEME, hosts=hosts, options=options, **common)


def _parse_host(text: str, shown: str) -> tuple[str, int]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ConfigurationError(f"{shown!r} has an IPv6 address without its closing bracket")
        port_text = rest[1:]
        has_port = bool(rest)
    else:
        host, colon, port_text = text.partition(":")
        has_port = bool(colon)
    if not host:
        raise ConfigurationError(f"{shown!r} names no host")
    if not has_port:
        return host, DEFAULT_PORT
    if not (port_text.isascii() and port_text.isdigit() and int(port_text) < 65536):
        raise ConfigurationError(f"{shown!r} has a port that is no number from 0 to 65535: {port_text!r}")
    return host, int(port_text)


def redact(url: str) -> str:
    """Return ``url`` with its password, if it has one, as ``***``, however malformed the rest is."""
    head, separator, rest = url.partition("://")
    if not separator:
        head, rest = "", url
    authority_end = min((rest.find(mark) for mark in "/?#" if mark in rest), default=len(rest))
    # A password may itself hold any of those marks when it was not quoted: the last @ ends it.
    at = rest.rfind("@")
    if at < 0:
        return url
    if at < authority_end or ":" in rest[:at]:
        user, colon, _ = rest[:at].partition(":")
        if colon:
            return f"{head}{separator}{user}:***{rest[at:]}"
    return url
