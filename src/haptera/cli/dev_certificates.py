"""An authority for tests, and two certificates of it: of a server and of a client (`haptera dev-certs`).

The key of the authority is thrown away, so that no one can make further certificates that these sides would trust.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

#: The names of this machine, which the server's certificate always has.
LOCAL_NAMES: Final = ("localhost", "127.0.0.1", "::1")
#: The files, and whether they are secret.
FILES: Final = {
    "ca.pem": False,
    "server.pem": False,
    "server.key": True,
    "client.pem": False,
    "client.key": True,
}
#: The name of a client in its certificate begins with this.
CLIENT_URI: Final = "urn:haptera:client:"
#: Certificates begin a little before now, because clocks differ.
_SLACK: Final = timedelta(hours=1)


def make(names: Sequence[str], client: str, days: int) -> dict[str, bytes]:
    """Return the content of each of `FILES`.

    ``names`` are names and addresses of the server beside the local ones, ``client`` the name in the client's
    certificate. Raises ValueError for a name that no certificate can have.
    """
    now = datetime.now(UTC)
    authority = _Authority(now, days)
    server = authority.issue([_general_name(name) for name in _unique(names)], ExtendedKeyUsageOID.SERVER_AUTH)
    user = authority.issue([x509.UniformResourceIdentifier(CLIENT_URI + client)], ExtendedKeyUsageOID.CLIENT_AUTH)
    return dict(zip(FILES, [authority.certificate.public_bytes(Encoding.PEM), *server, *user], strict=True))


def _unique(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys([*LOCAL_NAMES, *names]))


def _general_name(name: str) -> x509.GeneralName:
    with suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(name))
    return x509.DNSName(name)


class _Authority:
    """An authority that can sign leaves and no other authority."""

    def __init__(self, now: datetime, days: int) -> None:
        self._begins, self._ends = now - _SLACK, now + timedelta(days=days)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named("Haptera test authority")
        builder = self._begin(self._name, self._key)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(signs=True), critical=True)
        self.certificate = builder.sign(self._key, SHA256())

    def issue(self, names: list[x509.GeneralName], purpose: ObjectIdentifier) -> tuple[bytes, bytes]:
        """Return a certificate with these names for one purpose, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._begin(_named("Haptera test"), key)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self._key, SHA256()).public_bytes(Encoding.PEM)
        return certificate, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def _begin(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        own = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._begins)
            .not_valid_after(self._ends)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(own, critical=False)
        )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )
