"""The options of a URL: ``?timeout=&ping_interval=&compression=zstd|none&signed=psk|scram|no&key_file=``, to dial
``auth=scram|external|plain``, and those of TLS: ``cert=&key=&tls_min=1.2|1.3``, to dial ``ca=``, and to listen
``client_ca=&crl=``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn

import msgspec

from haptera.connection import BOUNDS
from haptera.errors import ConfigurationError
from haptera.peer.own_credential import MECHANISMS
from haptera.peer.secret_files import read_key_file
from haptera.transport import TLS_OPTIONS, TlsFiles, check_tls_option, read_tls_files

if TYPE_CHECKING:
    from haptera.transport import Address

_COMPRESSION: Final = {"zstd": True, "none": False}
#: The protocol inside TLS, as both sides name it (spec/protocol.md, section 1).
ALPN: Final = "haptera/1"


class Options(msgspec.Struct, frozen=True):
    """The options of one URL; None for absent ones. ``timeout`` is in seconds. ``signs_by_exchange`` says whether the
    keys of SCRAM sign the frames.
    """

    timeout: float | None = None
    ping_interval_ms: int | None = None
    compression: bool | None = None
    signing_key: bytes | None = None
    tls: TlsFiles | None = None
    signs_by_exchange: bool = False
    auth: str | None = None

    def __repr__(self) -> str:
        """Show no key."""
        signed = "***" if self.signing_key is not None else None
        times = f"timeout={self.timeout!r}, ping_interval_ms={self.ping_interval_ms!r}"
        rest = f"tls={self.tls!r}, signs_by_exchange={self.signs_by_exchange!r}, auth={self.auth!r}"
        return f"Options({times}, compression={self.compression!r}, signing_key={signed}, {rest})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Show no more than ``repr`` does."""
        return [("options", repr(self))]


def read_options(address: Address) -> Options:
    """Return the options of a URL to dial; the key file is read.

    Raises ``ConfigurationError`` for an option that is not known and for a value that it may not have: nothing that a
    URL asks for is ever left out.
    """
    return _read(address, listening=False)


def read_listening_options(address: Address) -> Options:
    """Return the options of a URL to listen on, as ``read_options`` does for a URL to dial."""
    refuse_user(address)
    options = _read(address, listening=True)
    if options.timeout is not None:
        _refuse(address, "timeout is an option of the dialling side")
    if options.auth is not None:
        _refuse(address, "auth is an option of the dialling side")
    return options


def _read(address: Address, *, listening: bool) -> Options:
    timeout: float | None = None
    ping_interval_ms: int | None = None
    compression: bool | None = None
    for name, value in address.options.items():
        if name == "timeout":
            timeout = _seconds(address, value)
        elif name == "ping_interval":
            ping_interval_ms = _milliseconds(address, value)
        elif name == "compression":
            if value not in _COMPRESSION:
                _refuse(address, f"compression is zstd or none, not {value!r}")
            compression = _COMPRESSION[value]
        elif name == "auth":
            if value not in MECHANISMS:
                _refuse(address, f"auth is {', '.join(MECHANISMS)}, not {value!r}")
        elif name in TLS_OPTIONS:
            check_tls_option(address, name, listening=listening)
        elif name not in {"signed", "key_file"}:
            _refuse(address, f"the option {name!r} is not known to this version")
    tls = read_tls_files(address, ALPN, listening=listening) if address.tls else None
    key = _signing_key(address)
    by_exchange = address.options.get("signed") == "scram"
    auth = address.options.get("auth")
    if by_exchange and auth not in {None, "scram"}:
        _refuse(address, f"signed=scram signs with the keys of SCRAM, and auth={auth} has none")
    return Options(timeout, ping_interval_ms, compression, key, tls, by_exchange, auth)


def refuse_user(address: Address) -> None:
    """Refuse the credential of a URL that nothing is dialled by: one is never dropped."""
    if address.user is not None:
        raise ConfigurationError(f"{address} has a user, and a listener has none")


def _signing_key(address: Address) -> bytes | None:
    signed = address.options.get("signed")
    path = address.options.get("key_file")
    if address.tls and signed is not None:
        _refuse(address, "frames are never signed inside TLS: leave signed away")
    if signed == "psk":
        if not path:
            _refuse(address, "signed=psk needs key_file=PATH, the file of the pre-shared key")
        return read_key_file(path)
    if signed not in {None, "no", "scram"}:
        _refuse(address, f"signed is psk, scram or no, not {signed!r}")
    if path is not None:
        _refuse(address, "key_file is the key of signed=psk, which is missing")
    return None


def _seconds(address: Address, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        _refuse(address, f"timeout is a number of seconds above 0, not {text!r}")
    return seconds


def _milliseconds(address: Address, text: str) -> int:
    try:
        return int(BOUNDS["ping_interval_ms"].check(round(float(text) * 1000)))
    except (ValueError, OverflowError):
        _refuse(address, f"ping_interval is a number of seconds, or 0 for never, not {text!r}")


def _refuse(address: Address, reason: str) -> NoReturn:
    raise ConfigurationError(f"{address}: {reason}")
