"""The options of a URL: ``?timeout=&ping_interval=&compression=zstd|none&signed=psk|no&key_file=``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn

import msgspec

from haptera.connection import BOUNDS
from haptera.errors import ConfigurationError
from haptera.peer.secret_files import read_key_file

if TYPE_CHECKING:
    from haptera.transport import Address

_COMPRESSION: Final = {"zstd": True, "none": False}


class Options(msgspec.Struct, frozen=True):
    """The options of one URL; None for absent ones. ``timeout`` is in seconds."""

    timeout: float | None = None
    ping_interval_ms: int | None = None
    compression: bool | None = None
    signing_key: bytes | None = None

    def __repr__(self) -> str:
        """Show no key."""
        signed = "***" if self.signing_key is not None else None
        times = f"timeout={self.timeout!r}, ping_interval_ms={self.ping_interval_ms!r}"
        return f"Options({times}, compression={self.compression!r}, signing_key={signed})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Show no more than ``repr`` does."""
        return [("options", repr(self))]


def read_options(address: Address) -> Options:
    """Return a URL's options; the key file is read.

    Raises ``ConfigurationError`` for an option that is not known and for a value that it may not have: nothing that a
    URL asks for is ever left out.
    """
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
        elif name not in {"signed", "key_file"}:
            _refuse(address, f"the option {name!r} is not known to this version")
    return Options(timeout, ping_interval_ms, compression, _signing_key(address))


def read_listening_options(address: Address) -> Options:
    """Return the options of a URL to listen on, as ``read_options`` does for a URL to dial."""
    refuse_user(address)
    options = read_options(address)
    if options.timeout is not None:
        _refuse(address, "timeout is an option of the dialling side")
    return options


def refuse_user(address: Address) -> None:
    """Refuse parts of a URL that nothing here honours yet: a credential is never dropped."""
    if address.user is not None:
        raise ConfigurationError(f"{address} has a user, and this version cannot authenticate")


def _signing_key(address: Address) -> bytes | None:
    signed = address.options.get("signed")
    path = address.options.get("key_file")
    if signed == "psk":
        if not path:
            _refuse(address, "signed=psk needs key_file=PATH, the file of the pre-shared key")
        return read_key_file(path)
    if signed not in {None, "no"}:
        _refuse(address, f"signed is psk or no, not {signed!r}")
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
