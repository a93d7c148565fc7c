"""The four messages of SCRAM as bytes (RFC 5802, section 7), written and strictly read.

A reader takes a message in the one order and the one form that the grammar allows. Unknown extensions are well formed
and ignored, as the RFC says; a mandatory one, ``m``, is refused with all else that does not fit. A message that is read
is bounded before anything is done with it.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from haptera.access_rules import (
    ITERATIONS_MAX,
    ITERATIONS_MIN,
    SALT_SIZE_MAX,
    SALT_SIZE_MIN,
    VERIFIER_KEY_SIZE,
    is_name,
)
from haptera.security.errors import ExchangeFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from haptera.security.binding import Binding

#: Bytes of a message: several times the longest name, nonce and binding.
MESSAGE_SIZE_MAX: Final = 4096
#: Characters of one side's part of a nonce.
NONCE_SIZE_MIN: Final = 16
NONCE_SIZE_MAX: Final = 128
#: Random bytes in a nonce of this side: 24 characters.
_NONCE_ENTROPY: Final = 18

#: An attribute: a letter, and a value of at least one character.
_ATTRIBUTE: Final = re.compile(r"([A-Za-z])=([^\0,]+)")
_NONCE: Final = re.compile(r"[\x21-\x2b\x2d-\x7e]+")
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,9}")
#: The two signs that a name cannot have as they are, and an equals sign that stands for neither.
_STRAY_EQUALS: Final = re.compile("=(?!2C|3D)")
#: The attributes that have a meaning of their own, and so are no extensions.
_RESERVED: Final = frozenset("anmrcsipve")


@dataclass(frozen=True, slots=True)
class ClientFirst:
    """The dialer names the user. ``bare`` is the message without the GS2 header, as it is signed."""

    name: str
    nonce: str
    bare: str


@dataclass(frozen=True, slots=True)
class ServerFirst:
    """The acceptor says how the password is salted; ``nonce`` is the dialer's with its own behind it."""

    nonce: str
    salt: bytes
    iterations: int
    text: str


@dataclass(frozen=True, slots=True)
class ClientFinal:
    """The dialer proves that it knows the password. ``bare`` is the message without the proof, as it is signed."""

    binding: str
    nonce: str
    proof: bytes = field(repr=False)
    bare: str


def new_nonce(entropy: Callable[[int], bytes]) -> str:
    """Make one side's part of a nonce. ``entropy`` gives as many random bytes as it is asked for."""
    return b64encode(entropy(_NONCE_ENTROPY)).decode()


def write_client_first(name: str, nonce: str) -> ClientFirst:
    """Make the first message of a dialer."""
    escaped = name.replace("=", "=3D").replace(",", "=2C")
    return ClientFirst(name, nonce, f"n={escaped},r={nonce}")


def write_server_first(nonce: str, salt: bytes, iterations: int) -> ServerFirst:
    """Make the first message of an acceptor; ``nonce`` is the whole one."""
    return ServerFirst(nonce, salt, iterations, f"r={nonce},s={b64encode(salt).decode()},i={iterations}")


def write_client_final_bare(binding: Binding, nonce: str) -> str:
    """Make the last message of a dialer, without its proof."""
    return f"c={binding.attribute},r={nonce}"


def write_client_final(bare: str, proof: bytes) -> bytes:
    """Put the proof to the last message of a dialer."""
    return f"{bare},p={b64encode(proof).decode()}".encode()


def write_server_final(signature: bytes) -> bytes:
    """Make the last message of an acceptor."""
    return b"v=" + b64encode(signature)


def read_client_first(message: bytes, binding: Binding) -> ClientFirst:
    """Read the first message of a dialer, whose GS2 header is the binding's. Raises `ExchangeFailed`."""
    text = _text(message)
    if not text.startswith(binding.gs2_header):
        raise ExchangeFailed("client-first has another channel binding, none, or an identity to act as")
    bare = text.removeprefix(binding.gs2_header)
    escaped, nonce = _attributes(bare, "nr")
    name = escaped.replace("=2C", ",").replace("=3D", "=")
    if _STRAY_EQUALS.search(escaped) is not None or not is_name(name):
        raise ExchangeFailed("client-first has no user's name")
    _require_nonce(nonce)
    return ClientFirst(name, nonce, bare)


def read_server_first(message: bytes, own_nonce: str) -> ServerFirst:
    """Read the first message of an acceptor to a dialer with that nonce. Raises `ExchangeFailed`, also for a salt or
    iterations that a dialer does not take.
    """
    text = _text(message)
    nonce, salt, iterations = _attributes(text, "rsi")
    if not nonce.startswith(own_nonce):
        raise ExchangeFailed("server-first is not for this client-first")
    _require_nonce(nonce.removeprefix(own_nonce))
    salted = _binary(salt)
    if not SALT_SIZE_MIN <= len(salted) <= SALT_SIZE_MAX:
        raise ExchangeFailed("server-first has a salt of a size that is not taken")
    if _NUMBER.fullmatch(iterations) is None or not ITERATIONS_MIN <= int(iterations) <= ITERATIONS_MAX:
        raise ExchangeFailed("server-first has a number of iterations that is not taken")
    return ServerFirst(nonce, salted, int(iterations), text)


def read_client_final(message: bytes) -> ClientFinal:
    """Read the last message of a dialer. Raises `ExchangeFailed`."""
    bare, _, proof = _text(message).rpartition(",p=")
    binding, nonce = _attributes(bare, "cr")
    return ClientFinal(binding, nonce, _key(proof), bare)


def read_server_final(message: bytes) -> bytes:
    """Read the signature in the last message of an acceptor. Raises `ExchangeFailed`, also if it is an error."""
    (signature,) = _attributes(_text(message), "v")
    return _key(signature)


def _text(message: bytes) -> str:
    if len(message) > MESSAGE_SIZE_MAX:
        raise ExchangeFailed("a SCRAM message is too long")
    try:
        return message.decode()
    except UnicodeDecodeError:
        raise ExchangeFailed("a SCRAM message is not UTF-8") from None


def _attributes(text: str, expected: str) -> list[str]:
    """Return the values of the attributes that a message begins with; well-formed extensions may stand behind them."""
    found = [_ATTRIBUTE.fullmatch(each) for each in text.split(",")]
    pairs = [each.groups() for each in found if each is not None]
    names = "".join(name for name, _ in pairs)
    if len(pairs) != len(found) or not names.startswith(expected):
        raise ExchangeFailed("a SCRAM message is malformed")
    extensions = names.removeprefix(expected)
    if not _RESERVED.isdisjoint(extensions) or len(set(extensions)) != len(extensions):
        raise ExchangeFailed("a SCRAM message has an attribute twice, or out of its place")
    return [value for _, value in pairs[: len(expected)]]


def _require_nonce(nonce: str) -> None:
    if not NONCE_SIZE_MIN <= len(nonce) <= NONCE_SIZE_MAX or _NONCE.fullmatch(nonce) is None:
        raise ExchangeFailed("a SCRAM message has no nonce, or one of a size that is not taken")


def _key(text: str) -> bytes:
    value = _binary(text)
    if len(value) != VERIFIER_KEY_SIZE:
        raise ExchangeFailed("a SCRAM message has a proof or a signature of another size")
    return value


def _binary(text: str) -> bytes:
    """The bytes that a text is in base64, in its one form: padded, and with no bit behind its end."""
    try:
        value = b64decode(text, validate=True)
    except ValueError:
        value = b""
    if not value or b64encode(value) != text.encode():
        raise ExchangeFailed("a SCRAM message has malformed base64")
    return value
