"""Certificates of an authority that is not ours, as files of a test."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING

import msgspec
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from haptera.transport.tls_context import TlsFiles
from tests.support.planted import note_private_key

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

ALPN = "haptera/1"
DAY = timedelta(days=1)


@cache
def authority(name: str = "ours") -> trustme.CA:
    """An authority; each name has its own."""
    return trustme.CA(organization_name=name)


class Authority:
    """Writes the files of one authority and its certificates into a folder."""

    def __init__(self, folder: Path, name: str = "ours", ca: trustme.CA | None = None) -> None:
        self.ca = authority(name) if ca is None else ca
        self.folder = folder
        self.path = folder / f"{name}-ca.pem"
        self.path.write_bytes(self.ca.cert_pem.bytes())

    def issue(
        self,
        name: str,
        *identities: str,
        begins: timedelta = -DAY,
        ends: timedelta = 365 * DAY,
    ) -> trustme.LeafCert:
        """Write ``name.pem`` and ``name.key``, valid from and to these times from now on."""
        now = datetime.now(UTC)
        leaf = self.ca.issue_cert(*(identities or (f"{name}.example",)), not_before=now + begins, not_after=now + ends)
        (self.folder / f"{name}.pem").write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        key = self.folder / f"{name}.key"
        key.touch(0o600)
        key.write_bytes(leaf.private_key_pem.bytes())
        note_private_key(leaf.private_key_pem.bytes())
        return leaf

    def revoke(self, name: str, *leaves: trustme.LeafCert, due: timedelta = 30 * DAY) -> Path:
        """Write a list of revoked certificates, which is to be replaced after a time."""
        now = datetime.now(UTC)
        issuer = x509.load_pem_x509_certificate(self.ca.cert_pem.bytes())
        builder = x509.CertificateRevocationListBuilder(issuer.subject, now - 60 * DAY, now + due)
        for leaf in leaves:
            serial = x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes()).serial_number
            entry = x509.RevokedCertificateBuilder(serial, now - DAY).build()
            builder = builder.add_revoked_certificate(entry)
        path = self.folder / f"{name}.crl"
        path.write_bytes(builder.sign(self._key, SHA256()).public_bytes(Encoding.PEM))
        return path

    def encrypt_key(self, name: str) -> None:
        """Put a passphrase on a key that was written."""
        path = self.folder / f"{name}.key"
        key = load_pem_private_key(path.read_bytes(), None)
        form = BestAvailableEncryption(b"passphrase")
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, form))

    @property
    def _key(self) -> EllipticCurvePrivateKey:
        return load_pem_private_key(self.ca.private_key_pem.bytes(), None)  # type: ignore[return-value]


def listening(folder: Path, name: str = "server", **more: str) -> str:
    """The options of a URL to listen on."""
    return _query(cert=f"{folder}/{name}.pem", key=f"{folder}/{name}.key", **more)


def dialling(ca: Path, folder: Path | None = None, name: str = "client", **more: str) -> str:
    """The options of a URL to dial; with a folder those of a client that has a certificate."""
    own = {} if folder is None else {"cert": f"{folder}/{name}.pem", "key": f"{folder}/{name}.key"}
    return _query(ca=str(ca), **own, **more)


def _query(**options: str) -> str:
    return "?" + "&".join(f"{name}={value}" for name, value in options.items())


def server_files(folder: Path, name: str = "server", *, client_ca: Path | None = None, **more: str) -> TlsFiles:
    """The files of a listener."""
    authorities = None if client_ca is None else str(client_ca)
    own = {"certificate": f"{folder}/{name}.pem", "key": f"{folder}/{name}.key"}
    return msgspec.structs.replace(TlsFiles(listening=True, alpn=ALPN, authorities=authorities), **own, **more)


def client_files(ca: Path, folder: Path | None = None, name: str = "client", **more: str) -> TlsFiles:
    """The files of a dialling side; with a folder it has a certificate."""
    own = {} if folder is None else {"certificate": f"{folder}/{name}.pem", "key": f"{folder}/{name}.key"}
    return msgspec.structs.replace(TlsFiles(listening=False, alpn=ALPN, authorities=str(ca)), **own, **more)
