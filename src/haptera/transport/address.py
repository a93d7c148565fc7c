"""Addresses: the URLs that name where to listen and where to dial (spec/protocol.md, section 1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, NoReturn, TypedDict

import msgspec

from haptera.defaults import PORTS
from haptera.errors import ConfigurationError

TCP_SCHEME: Final = "haptera"
UNIX_SCHEME: Final = "haptera+unix"
#: A scheme names a protocol, and behind it how its bytes travel: ``haptera``, ``hapteras``, ``haptera+unix``.
_TLS: Final = "s"
_UNIX: Final = "+unix"
_OURS: Final = (TCP_SCHEME,)
_SEPARATOR: Final = "://"
#: A path is bytes to the kernel: bytes that are no UTF-8 are kept as Python keeps them in file names.
_NO_UTF8: Final = "surrogateescape"
_PORT_DIGITS_MAX: Final = 5
_PORT_MAX: Final = 65535
_SCHEME_TEXT: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
#: A host once it is decoded: a name (of any script) or an IPv4 address, and in brackets an IPv6 address,
#: perhaps with its zone. Anything else would be printed as something that it is not.
_UNRESERVED: Final = re.compile(r"[A-Za-z0-9._~/-]*")
_NAME: Final = re.compile(r"[\w.~-]+")
_IPV6: Final = re.compile(r"[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*(?:%[\w.~-]+)?")

#: Where something listens: a host (a name or an address) and its port, or the path of a Unix socket.
Place = tuple[str, int] | str


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed URL. ``hosts`` is empty for a Unix socket, ``path`` for TCP. ``protocol`` is that of the bytes inside.

    Neither ``str`` nor ``repr`` shows the password.
    """

    scheme: str
    protocol: str = TCP_SCHEME
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    user: str | None = None
    password: str | None = None
    options: dict[str, str] = {}

    @property
    def tls(self) -> bool:
        """Whether the bytes are inside TLS."""
        return self.scheme == self.protocol + _TLS

    @property
    def places(self) -> tuple[Place, ...]:
        """Where to connect to, in the URL's order."""
        return self.hosts or (self.path,)

    def at(self, places: Sequence[Place]) -> Address:
        """Return the same with only these of its ``places``, in this order."""
        return self if self.path else msgspec.structs.replace(self, hosts=tuple(places))

    def __repr__(self) -> str:
        return f"Address({str(self)!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Show no more than ``repr`` does: the one that this replaces shows every field."""
        return [("url", str(self))]

    def __str__(self) -> str:
        """Return the URL, its password as ``***``."""
        credential = ""
        if self.user is not None:
            credential = _quote(self.user, safe="") + (":***" if self.password is not None else "") + "@"
        hosts = ",".join(format_host(*host) for host in self.hosts)
        place = _quote(self.path) if self.path else hosts
        query = "?" + _encode_options(self.options) if self.options else ""
        return f"{self.scheme}{_SEPARATOR}{credential}{place}{query}"


class _Common(TypedDict):
    user: str | None
    password: str | None
    options: dict[str, str]


def _quote(text: str, safe: str = "/") -> str:
    """Return a text percent-encoded. Bytes that are no UTF-8 are encoded as they are."""
    if _UNRESERVED.fullmatch(text) and (safe or "/" not in text):
        return text
    # `urllib.parse` takes two milliseconds with what it imports, and most URLs have nothing to encode or to decode.
    from urllib.parse import quote  # noqa: PLC0415

    return quote(text, safe=safe, errors=_NO_UTF8)


def _unquote(text: str, errors: str = "replace") -> str:
    """Return a percent-encoded text as it was."""
    if "%" not in text:
        return text
    from urllib.parse import unquote  # noqa: PLC0415  # as for `_quote`

    return unquote(text, errors=errors)


def _encode_options(options: dict[str, str]) -> str:
    from urllib.parse import quote, urlencode  # noqa: PLC0415  # as for `_quote`

    return urlencode(options, quote_via=quote, errors=_NO_UTF8)


def format_host(host: str, port: int) -> str:
    """Return ``host:port``, an IPv6 address in brackets."""
    return f"[{host.replace('%', '%25')}]:{port}" if ":" in host else f"{host}:{port}"


def format_place(place: Place) -> str:
    """Return a place as errors name it: ``host:port``, or the path."""
    return place if isinstance(place, str) else format_host(*place)


def url_of(place: Place, scheme: str = TCP_SCHEME) -> str:
    """Return the URL of one place, without options. A path has the scheme of a Unix socket, whichever is given."""
    if isinstance(place, str):
        protocol = scheme.removesuffix(_UNIX)
        return f"{protocol}{_UNIX}{_SEPARATOR}{_quote(place)}"
    return f"{scheme}{_SEPARATOR}{format_host(*place)}"


def parse(url: str, protocols: Sequence[str] = _OURS) -> Address:
    """Parse a URL of one of ``protocols``, by default Haptera's own.

    Several hosts may be given, separated by commas. Raises ``ConfigurationError``, which shows no password.
    """
    # The parts are taken here and not by `urllib.parse.urlsplit`: that one refuses an IPv6 address behind another
    # host, drops line ends without a word, and shows the password in some of its errors.
    scheme, separator, rest = url.partition(_SEPARATOR)
    scheme = scheme.lower()
    protocol = next((each for each in protocols if scheme in {each, each + _TLS, each + _UNIX}), None)
    if not separator or protocol is None:
        *most, last = [f"{each}{kind}{_SEPARATOR}" for each in protocols for kind in ("", _TLS, _UNIX)]
        _refuse(url, f"does not begin with {', '.join(most)} or {last}")
    if not url.isprintable() or " " in url:
        _refuse(url, "has a space or control character; write it percent-encoded")
    rest, mark, _ = rest.partition("#")
    if mark:
        _refuse(url, "has a fragment (#…), which means nothing here")
    rest, _, query = rest.partition("?")
    authority, slash, path = rest.partition("/")
    if "@" in path or "@" in query:
        _refuse_late_credential(url, authority)
    credential, at, place = authority.rpartition("@")
    user, colon, password = credential.partition(":")
    options = _parse_options(query, url)
    common = _Common(
        user=_unquote(user) if at else None, password=_unquote(password) if colon else None, options=options
    )
    if scheme.endswith(_UNIX):
        path = _unquote(slash + path, errors=_NO_UTF8)
        if place or len(path) < len("/x"):
            _refuse(url, f"names no absolute path; write {scheme}:///path/to/socket")
        if "\0" in path:
            _refuse(url, "has a NUL in its path")
        return Address(scheme=scheme, protocol=protocol, path=path, **common)
    if path:
        _refuse(url, "has a path, which means nothing for TCP")
    hosts = tuple(_parse_host(each, url, PORTS[protocol]) for each in place.split(","))
    return Address(scheme=scheme, protocol=protocol, hosts=hosts, **common)


def _refuse(url: str, reason: str) -> NoReturn:
    # Only ever with the whole URL, redacted: a part of a malformed one may be a part of its password.
    raise ConfigurationError(f"{redact(url)!r} {reason}")


def _refuse_late_credential(url: str, authority: str) -> None:
    """Refuse a password with a ``/`` or ``?`` of its own, which would otherwise be read as a host and a path."""
    if ":" in authority and "@" not in authority:
        _refuse(url, "has a password that is not percent-encoded (/ is %2F, ? is %3F, # is %23)")


def _parse_options(query: str, url: str) -> dict[str, str]:
    if not query:
        return {}
    from urllib.parse import parse_qsl  # noqa: PLC0415  # as for `_quote`

    pairs = parse_qsl(query, keep_blank_values=True, errors=_NO_UTF8)
    options = dict(pairs)
    if len(options) != len(pairs):
        _refuse(url, "has an option twice")
    return options


def _parse_host(text: str, url: str, default_port: int) -> tuple[str, int]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            _refuse(url, "has an IPv6 address without its closing bracket")
        colon, port_text = rest[:1], rest[1:]
    else:
        host, colon, port_text = text.partition(":")
        if ":" in port_text:
            _refuse(url, "has a host with more than one colon; write an IPv6 address in brackets")
    if not host:
        _refuse(url, "names no host")
    host = _unquote(host)
    if not (_IPV6 if text.startswith("[") else _NAME).fullmatch(host):
        _refuse(url, "has a host that is neither a name nor an address")
    if not colon:
        return host, default_port
    if not (port_text.isascii() and port_text.isdigit() and len(port_text) <= _PORT_DIGITS_MAX):
        _refuse(url, f"has a port that is no number from 0 to {_PORT_MAX}")
    port = int(port_text)
    if port > _PORT_MAX:
        _refuse(url, f"has a port that is no number from 0 to {_PORT_MAX}")
    return host, port


def redact(url: str) -> str:
    """Return ``url`` with its password, if it has one, as ``***``, however malformed the rest is."""
    head, separator, rest = url.partition(_SEPARATOR)
    if not separator or not _SCHEME_TEXT.fullmatch(head):
        # No scheme, or a mistyped one: where a user ends and a password begins is anyone's guess.
        credential, at, place = url.rpartition("@")
        return f"***@{place}" if at and ":" in credential else url
    # A password that was not percent-encoded may hold any sign: only the last @ is sure to be behind it.
    credential, at, place = rest.rpartition("@")
    user, colon, _ = credential.partition(":")
    return f"{head}{separator}{user}:***@{place}" if at and colon else url


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, and nothing else can reach it."""
    import ipaddress  # noqa: PLC0415  # it takes a millisecond, and a client asks of few hosts

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
