"""The channel binding ``haptera-hello``: an exchange is good for the one connection whose handshake it names.

The binding covers both handshake frames and the acceptor's certificate. So a capability that somebody strips, a version
that somebody lowers, or a relay between the two peers makes the proof fail (spec/protocol.md, section 5.1).
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from typing import Final, NamedTuple

_GS2_HEADER: Final = "p=haptera-hello,,"
_NO_CERTIFICATE: Final = bytes(32)


class Binding(NamedTuple):
    """The GS2 header that an exchange begins with, and the data of its channel binding (RFC 5802, section 5.1)."""

    gs2_header: str
    data: bytes

    @property
    def attribute(self) -> str:
        """The value of ``c`` in client-final."""
        return b64encode(self.gs2_header.encode() + self.data).decode()


#: The binding of an exchange that begins before WELCOME has come: its first message needs the header alone.
UNBOUND: Final = Binding(_GS2_HEADER, b"")


def link_binding(hello_frame: bytes, welcome_frame: bytes, certified: bytes) -> Binding:
    """Return the binding of a connection, as `hello_binding` does; ``certified`` is the SHA-256 of the certificate, or
    32 zero bytes outside TLS.
    """
    return Binding(_GS2_HEADER, sha256(hello_frame + welcome_frame + certified).digest())


def hello_binding(hello_frame: bytes, welcome_frame: bytes, certificate: bytes | None) -> Binding:
    """Return the binding of a connection.

    Args:
        hello_frame: HELLO as it was sent, from magic to the end of the payload.
        welcome_frame: WELCOME likewise.
        certificate: the acceptor's leaf certificate as DER inside TLS, or None outside.
    """
    certified = _NO_CERTIFICATE if certificate is None else sha256(certificate).digest()
    return link_binding(hello_frame, welcome_frame, certified)
