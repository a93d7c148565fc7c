"""Certificates and lists of revoked ones in PEM, as far as a node looks into them itself: where they are in a file, and
the times at which they end.

The checks are OpenSSL's. Python's ``ssl`` does not tell when a certificate that it has loaded ends, so this reads the
few fields before that time in the DER (RFC 5280, sections 4.1 and 5.1).
"""

from __future__ import annotations

import binascii
import re
from datetime import UTC, datetime
from typing import Final

import msgspec

_BEGIN: Final = b"-----BEGIN %s-----"
_END: Final = b"-----END %s-----"

_INTEGER: Final = 0x02
_SEQUENCE: Final = 0x30
_UTC_TIME: Final = 0x17
_GENERALIZED_TIME: Final = 0x18
_VERSION: Final = 0xA0
#: Bytes of a length: a field of 16 MiB and more is none of a certificate.
_LENGTH_SIZE_MAX: Final = 3
#: UTCTime has two digits of the year; from 50 on they are of the last century.
_PIVOT_YEAR: Final = 50


class Certificate(msgspec.Struct, frozen=True):
    """A certificate: its bytes in DER, and the Unix times in seconds between which it is valid."""

    der: bytes
    begins_at: int
    ends_at: int

    @property
    def digest(self) -> bytes:
        """The SHA-256 of its bytes: the value C to which an authentication is bound (spec/protocol.md, section 5.1)."""
        from hashlib import sha256  # noqa: PLC0415  # it loads OpenSSL's hashes, and a plain connection needs none

        return sha256(self.der).digest()


def certificates(pem: bytes) -> list[bytes]:
    """Return the DER of each certificate of a PEM file, at least one. Raises ``ValueError``."""
    return _blocks(pem, b"CERTIFICATE")


def first_certificate(pem: bytes) -> Certificate:
    """Return the first certificate of a PEM file. Raises ``ValueError``."""
    der = certificates(pem)[0]
    fields = _Reader(_Reader(_Reader(der).take(_SEQUENCE)).take(_SEQUENCE))
    fields.skip(_VERSION)
    fields.take(_INTEGER)  # the serial number
    fields.take(_SEQUENCE)  # the algorithm
    fields.take(_SEQUENCE)  # the issuer
    validity = _Reader(fields.take(_SEQUENCE))
    return Certificate(der, validity.time(), validity.time())


def revocations_end_at(pem: bytes) -> int | None:
    """Return the Unix time at which the first list of revoked certificates in a PEM file is due to be replaced: from
    then on OpenSSL refuses every certificate. None if no list says. Raises ``ValueError``.
    """
    ends = [end for der in _blocks(pem, b"X509 CRL") if (end := _next_update(der)) is not None]
    return min(ends, default=None)


def _next_update(der: bytes) -> int | None:
    fields = _Reader(_Reader(_Reader(der).take(_SEQUENCE)).take(_SEQUENCE))
    fields.skip(_INTEGER)  # the version
    fields.take(_SEQUENCE)  # the algorithm
    fields.take(_SEQUENCE)  # the issuer
    fields.time()  # when it was made
    return fields.time() if fields.next_tag in {_UTC_TIME, _GENERALIZED_TIME} else None


def _blocks(pem: bytes, kind: bytes) -> list[bytes]:
    """Return the DER of each block of a kind, at least one. Raises ``ValueError``.

    A block begins a line, as it does for OpenSSL: one behind a sign of a comment is a comment.
    """
    blocks = []
    for part in re.split(b"^" + _BEGIN % kind, pem, flags=re.MULTILINE)[1:]:
        body, end, _ = part.partition(_END % kind)
        if not end:
            raise ValueError("it ends within a block")
        try:
            blocks.append(binascii.a2b_base64(b"".join(body.split()), strict_mode=True))
        except binascii.Error as error:
            raise ValueError(f"it has a block that is not base64: {error}") from error
    if not blocks:
        raise ValueError(f"it has no block {kind.decode()} in PEM")
    return blocks


class _Reader:
    """Takes the fields of a DER sequence one after the other. Raises ``ValueError`` for anything else than expected."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def next_tag(self) -> int | None:
        """The tag of the field that is next; None at the end."""
        return self._data[self._at] if self._at < len(self._data) else None

    def skip(self, tag: int) -> None:
        """Pass over a field that may be absent."""
        if self.next_tag == tag:
            self.take(tag)

    def take(self, *tags: int) -> bytes:
        """Return the content of the next field, which has one of these tags."""
        data, at = self._data, self._at
        if self.next_tag not in tags or at + 2 > len(data):
            raise ValueError("its DER does not have the fields of X.509")
        length, at = data[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            if not 0 < size <= _LENGTH_SIZE_MAX:
                raise ValueError("its DER has a length that no certificate has")
            length, at = int.from_bytes(data[at : at + size], "big"), at + size
        if at + length > len(data):
            raise ValueError("its DER is cut off")
        self._at = at + length
        return data[at : self._at]

    def time(self) -> int:
        """Return the Unix time of the next field."""
        form = self.next_tag
        text = self.take(_UTC_TIME, _GENERALIZED_TIME).decode("ascii", "replace")
        digits = text.removesuffix("Z")
        if form == _UTC_TIME:
            digits = ("19" if digits[:2] >= str(_PIVOT_YEAR) else "20") + digits
        if not (
            text.endswith("Z") and digits.isdecimal() and digits.isascii() and len(digits) == len("YYYYMMDDhhmmss")
        ):
            raise ValueError("its DER has a time of another form than RFC 5280's")
        year, rest = int(digits[:4]), digits[4:]
        month, day, hour, minute, second = (int(rest[at : at + 2]) for at in range(0, len(rest), 2))
        try:
            return int(datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp())
        except ValueError as error:
            raise ValueError("its DER has a time that no calendar has") from error
