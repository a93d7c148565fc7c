"""Signed frames: the keys of a connection and the tags that its frames carry (spec/protocol.md, section 5.2)."""

from __future__ import annotations

from typing import Final

from haptera.wire.frame import HEADER_SIZE, signed_header

TAG_SIZE: Final = 32
#: The least bytes of a pre-shared secret: a signature is no better than its secret is hard to guess.
SECRET_SIZE_MIN: Final = 32

_DIALER_INFO: Final = b"haptera/1 dialer"
_ACCEPTOR_INFO: Final = b"haptera/1 acceptor"


def hkdf_sha256(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """Derive 32 bytes (RFC 5869). With SHA-256 that is one block, so extract and expand are one HMAC each."""
    import hmac  # noqa: PLC0415  # it loads OpenSSL's hashes, and most connections are not signed

    return hmac.digest(hmac.digest(salt, secret, "sha256"), info + b"\x01", "sha256")


def preshared_keys(secret: bytes, hello_frame: bytes, welcome_frame: bytes) -> tuple[bytes, bytes]:
    """Return the dialer's and the acceptor's key of a connection with a pre-shared secret.

    Both handshake frames go into the keys as they were sent, so that any change in them, or a frame that comes from
    another connection, makes every tag fail. Raises ``ValueError`` for a secret of less than 32 bytes.
    """
    from hashlib import sha256  # noqa: PLC0415  # as above

    check_secret(secret)
    return direction_keys(secret, sha256(hello_frame + welcome_frame + bytes(32)).digest())


def direction_keys(ikm: bytes, salt: bytes) -> tuple[bytes, bytes]:
    """Return the dialer's and the acceptor's key that follow from a secret, pre-shared or of an exchange."""
    return hkdf_sha256(ikm, salt, _DIALER_INFO), hkdf_sha256(ikm, salt, _ACCEPTOR_INFO)


def check_secret(secret: bytes) -> None:
    """Raise ``ValueError`` for a secret of less than 32 bytes; it does not appear in the error."""
    if len(secret) < SECRET_SIZE_MIN:
        raise ValueError(f"a signing key has at least {SECRET_SIZE_MIN} bytes, not {len(secret)}")


class Signer:
    """The tags of one direction, for the side that makes them or the one that verifies them.

    The sequence number is implicit: 0 for the first signed frame, one more for each after it. So there is one signer
    for each direction, and every frame passes through it in the order of the wire.
    """

    __slots__ = ("_keyed", "_sequence")

    def __init__(self, key: bytes) -> None:
        import hmac  # noqa: PLC0415  # as above

        # A copy of a keyed state costs less than setting the key again for each frame.
        self._keyed = hmac.new(key, digestmod="sha256")
        self._sequence = 0

    def _tag(self, frame: bytes, payload: bytes) -> bytes:
        state = self._keyed.copy()
        state.update(self._sequence.to_bytes(8, "big"))
        state.update(frame)
        if payload:
            state.update(payload)
        self._sequence += 1
        return state.digest()

    def seal(self, head: bytes, payload: bytes) -> tuple[bytes, bytes, bytes]:
        """Return the next frame as three parts to send: the head with the SIGNED flag, the payload, the tag.

        ``head`` is all that stands before ``payload``; a whole frame is a head with an empty payload behind it.
        """
        head = signed_header(head) + head[HEADER_SIZE:]
        return head, payload, self._tag(head, payload)

    def verify(self, head: bytes, payload: bytes, tag: bytes) -> bool:
        """Whether ``tag`` is that of the next frame, which is given as in ``seal``. Takes constant time."""
        import hmac  # noqa: PLC0415  # as above

        return hmac.compare_digest(self._tag(head, payload), tag)
