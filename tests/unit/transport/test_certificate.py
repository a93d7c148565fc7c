"""The times at which certificates and lists of revoked ones end, against those that another library has written."""

from __future__ import annotations

import hashlib
import ssl
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from haptera.transport.certificate import first_certificate, revocations_end_at
from tests.support.certificates import DAY, Authority, authority

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("ends", [timedelta(minutes=5), 90 * DAY, 365 * 40 * DAY], ids=["soon", "usual", "after 2050"])
def test_a_certificate_has_its_times_and_its_digest(tmp_path: Path, ends: timedelta) -> None:
    Authority(tmp_path).issue("server", ends=ends)
    pem = (tmp_path / "server.pem").read_bytes()
    found, other = first_certificate(pem), x509.load_pem_x509_certificate(pem)
    assert found.begins_at == other.not_valid_before_utc.timestamp()
    assert found.ends_at == other.not_valid_after_utc.timestamp()
    assert found.der == other.public_bytes(Encoding.DER)
    assert found.digest == hashlib.sha256(found.der).digest()


def test_the_first_certificate_of_a_file_is_the_one_of_this_side(tmp_path: Path) -> None:
    ours = Authority(tmp_path)
    first, second = ours.issue("a").cert_chain_pems[0].bytes(), ours.issue("b").cert_chain_pems[0].bytes()
    assert first_certificate(b"a comment\n" + first + second) == first_certificate(first) != first_certificate(second)


def test_a_time_that_no_calendar_has_is_refused() -> None:
    for wrong in (b"20990231000000Z", b"99991299000000Z", b"20500101240000Z", b"00000101000000Z"):
        field = bytes([0x18, len(wrong)]) + wrong
        validity = b"\x30" + bytes([2 * len(field)]) + field * 2
        fields = b"\x02\x01\x01" + b"\x30\x00" * 2 + validity
        inner = b"\x30" + bytes([len(fields)]) + fields
        der = b"\x30" + bytes([len(inner)]) + inner
        with pytest.raises(ValueError, match=r"time that no calendar has"):
            first_certificate(ssl.DER_cert_to_PEM_cert(der).encode())


def test_the_list_that_is_due_first_decides(tmp_path: Path) -> None:
    ours = Authority(tmp_path)
    soon, late = (ours.revoke(name, due=due).read_bytes() for name, due in (("a", 2 * DAY), ("b", 9 * DAY)))
    due = x509.load_pem_x509_crl(soon).next_update_utc
    assert due is not None
    assert revocations_end_at(late + soon) == revocations_end_at(soon) == due.timestamp()


PEM = authority().cert_pem.bytes()


@pytest.mark.parametrize(
    ("pem", "reason"),
    [
        (b"", "has no block CERTIFICATE in PEM"),
        (PEM[:-40], "ends within a block"),
        (PEM.replace(b"M", b"!"), "not base64"),
        (b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----", "fields of X.509"),
        (b"-----BEGIN CERTIFICATE-----\nMIQ=\n-----END CERTIFICATE-----", "length that no certificate has"),
        (b"-----BEGIN CERTIFICATE-----\nMH8A\n-----END CERTIFICATE-----", "is cut off"),
        (b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----", "fields of X.509"),
    ],
)
def test_what_is_no_certificate_is_refused_in_words(pem: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        first_certificate(pem)


@given(st.integers(0, len(first_certificate(PEM).der) - 1), st.integers(1, 255))
def test_any_damage_gives_a_certificate_or_a_value_error(place: int, flip: int) -> None:
    import base64

    der = bytearray(first_certificate(PEM).der)
    der[place] ^= flip
    body = base64.encodebytes(bytes(der))
    try:
        first_certificate(b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n")
    except ValueError:
        pass
