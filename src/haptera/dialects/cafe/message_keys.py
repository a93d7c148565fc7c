"""The keys of a connection, which follow from the shared key: tags, and encrypted bodies (spec/cafe.md, section 3)."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from haptera.errors import ConfigurationError
from haptera.secret_forms import KEY_SIZE
from haptera.wire import hkdf_sha256

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_BOUND: Final = b"cafe/1"
_ENCRYPTION: Final = b"cafe/1 encryption"

#: Returns the tag of a message by its head and all that stands behind its header.
Tagger = Callable[[bytes, bytes], bytes]


def can_encrypt() -> bool:
    """Whether bodies can be encrypted here: whether the package that does it is installed."""
    return find_spec("cryptography") is not None


class ConnectionKey:
    """The key of a connection: the shared key, or the one that BIND makes of it. Its repr hides it.

    ``tag(head, body)`` is the HMAC-SHA256 of a message.
    """

    __slots__ = ("_cipher", "_secret", "tag")

    def __init__(self, secret: bytes) -> None:
        """``secret`` has 32 bytes. Raises ``ConfigurationError`` for any other, and shows nothing of it."""
        if not isinstance(secret, bytes) or len(secret) != KEY_SIZE:
            raise ConfigurationError(f"the shared key of CAFE has {KEY_SIZE} bytes")
        self._secret = secret
        self._cipher: AESGCM | None = None
        self.tag: Final[Tagger] = _tagger(secret)

    def __repr__(self) -> str:
        return "ConnectionKey(***)"

    def bound(self, client_nonce: bytes, server_nonce: bytes) -> ConnectionKey:
        """Return the key behind a BIND with these nonces."""
        return ConnectionKey(hkdf_sha256(self._secret, client_nonce + server_nonce, _BOUND))

    def encrypt(self, nonce: bytes, plain: bytes, head: bytes) -> bytes:
        """Return a body encrypted, with its tag behind it and without the nonce. ``head`` is authenticated with it."""
        return self._aead().encrypt(nonce, plain, head)

    def decrypt(self, nonce: bytes, sealed: bytes, head: bytes) -> bytes | None:
        """Return a body in the clear; None for one that was not encrypted with this key, nonce and head."""
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415  # a part of the extra of nodes

        try:
            return self._aead().decrypt(nonce, sealed, head)
        except InvalidTag:
            return None

    def _aead(self) -> AESGCM:
        cipher = self._cipher
        if cipher is None:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415  # as above

            cipher = self._cipher = AESGCM(hkdf_sha256(self._secret, b"", _ENCRYPTION))
        return cipher


def _tagger(secret: bytes) -> Tagger:
    """Return the function that makes tags.

    A copy of a keyed state costs less than setting the key again for each message, and that of `cryptography` half as
    much as that of `hmac`. A node has `cryptography`; a client may be without it.
    """
    try:
        from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415  # a part of the extra of nodes
        from cryptography.hazmat.primitives.hmac import HMAC  # noqa: PLC0415  # as above
    except ImportError:
        return _plain_tagger(secret)
    copy = HMAC(secret, SHA256()).copy

    def tag(head: bytes, body: bytes) -> bytes:
        state = copy()
        state.update(head)
        state.update(body)
        return state.finalize()

    return tag


def _plain_tagger(secret: bytes) -> Tagger:
    """Return the function that makes tags with the standard library alone."""
    copy = hmac.new(secret, digestmod="sha256").copy

    def tag(head: bytes, body: bytes) -> bytes:
        state = copy()
        state.update(head)
        state.update(body)
        return state.digest()

    return tag
