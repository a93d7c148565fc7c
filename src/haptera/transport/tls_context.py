"""The TLS contexts of a listener and of a dialling side, made of files (spec/protocol.md, section 1).

There is no option that switches a check off. No session is offered to be resumed: a resumed one skips the look at the
certificate and at the list of revoked ones, and connections last so long that a full handshake costs nothing.
OpenSSL keeps sessions of TLS 1.2 all the same, so the transport ends a connection that resumes one where it matters.
"""

from __future__ import annotations

import os
import ssl
from typing import Final

import msgspec

from haptera.errors import ConfigurationError
from haptera.transport.certificate import Certificate, certificates, first_certificate, revocations_end_at
from haptera.transport.limits import TLS_FILE_SIZE_MAX
from haptera.transport.secret_files import read_file, unusable

TLS_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
TLS_VERSION_DEFAULT: Final = "1.3"
#: Of TLS 1.2 the ciphers with forward secrecy that protect the bytes with their tag. The ciphers of TLS 1.3 all do.
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
#: How often files are read that change meanwhile.
_READINGS_MAX: Final = 3

_CERTIFICATE: Final = "certificate"
_KEY: Final = "key of the certificate"
_AUTHORITIES: Final = "file of certificate authorities"
_REVOKED: Final = "list of revoked certificates"

#: The marks that tell one state of a file from another.
Signature = tuple[tuple[int, int, int] | None, ...]


class TlsFiles(msgspec.Struct, frozen=True, kw_only=True):
    """The files of one side, by their paths.

    A listener has ``certificate`` and ``key``. Its clients need a certificate of ``authorities`` where that is given,
    which ``revoked`` does not list. A dialling side trusts ``authorities``, else those of the system.
    """

    listening: bool
    certificate: str | None = None
    key: str | None = None
    authorities: str | None = None
    revoked: str | None = None
    oldest_version: str = TLS_VERSION_DEFAULT
    #: The name of the protocol inside, which both sides have to choose; None where it has none.
    alpn: str | None

    @property
    def paths(self) -> list[str]:
        """The files that there are."""
        return [path for path in (self.certificate, self.key, self.authorities, self.revoked) if path is not None]

    def signature(self) -> Signature:
        """Return what changes when a file does; None for one that is not there."""
        return tuple(map(signature_of, self.paths))


class TlsContext(msgspec.Struct, frozen=True):
    """A context and what is known of its files."""

    context: ssl.SSLContext
    alpn: str | None
    #: The certificate of this side; None for a dialling side that has none.
    certificate: Certificate | None
    #: The Unix time from which on the list of revoked certificates is too old, and every client is refused.
    revocations_end_at: int | None
    #: The mode of the key's file; 0 where there is none.
    key_mode: int
    signature: Signature


def load_context(files: TlsFiles) -> TlsContext:
    """Read the files of one side. Raises ``ConfigurationError``, which names the file and shows nothing of a key."""
    for _ in range(_READINGS_MAX):
        signature = files.signature()
        try:
            loaded = _load(files, signature)
        except ConfigurationError:
            if files.signature() == signature:
                raise
            continue
        if files.signature() == signature:
            return loaded
    raise ConfigurationError(f"the files {', '.join(files.paths)} change while they are read")


def _load(files: TlsFiles, signature: Signature) -> TlsContext:
    context = _strict(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if files.listening else ssl.PROTOCOL_TLS_CLIENT), files)
    own, mode = None, 0
    if files.certificate is not None and files.key is not None:
        own, mode = _load_own(context, files.certificate, files.key)
    if files.authorities is not None:
        _load_authorities(context, files.authorities)
        context.verify_mode = ssl.CERT_REQUIRED
    elif not files.listening:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    ends_at = None if files.revoked is None else _load_revoked(context, files.revoked)
    return TlsContext(context, files.alpn, own, ends_at, mode, signature)


def _strict(context: ssl.SSLContext, files: TlsFiles) -> ssl.SSLContext:
    """Have a context take no old version, no renegotiation and no session of before."""
    context.minimum_version = TLS_VERSIONS[files.oldest_version]
    context.set_ciphers(_CIPHERS)
    if files.alpn is not None:
        context.set_alpn_protocols([files.alpn])
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    if files.listening:
        context.num_tickets = 0
    else:
        context.hostname_checks_common_name = False
    return context


def _load_own(context: ssl.SSLContext, certificate: str, key: str) -> tuple[Certificate, int]:
    """Load the certificate of this side, with those between it and its authority, and its key; return it, and the mode
    of the key's file.
    """

    def refuse_passphrase() -> str:
        raise unusable(_KEY, key, "it is encrypted with a passphrase; a node starts without one to type it")

    pem, _ = read_file(certificate, _CERTIFICATE, size_max=TLS_FILE_SIZE_MAX)
    try:
        own = first_certificate(pem)
    except ValueError as error:
        raise unusable(_CERTIFICATE, certificate, str(error)) from error
    _, mode = read_file(key, _KEY, size_max=TLS_FILE_SIZE_MAX)
    try:
        context.load_cert_chain(certificate, key, refuse_passphrase)
    except (ssl.SSLError, OSError) as error:
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            raise unusable(_KEY, key, f"it is not the key of {certificate}") from None
        raise unusable(_KEY, key, f"{certificate} and it cannot be loaded: {explain(error)}") from None
    return own, mode


def _load_authorities(context: ssl.SSLContext, path: str) -> None:
    pem, _ = read_file(path, _AUTHORITIES, size_max=TLS_FILE_SIZE_MAX)
    try:
        # Without the comments, of which `ssl` takes ASCII alone; one by one, because it ends at an empty one unsaid.
        for der in certificates(pem):
            context.load_verify_locations(cadata=ssl.DER_cert_to_PEM_cert(der))
    except (ValueError, ssl.SSLError) as error:
        raise unusable(_AUTHORITIES, path, explain(error)) from error


def _load_revoked(context: ssl.SSLContext, path: str) -> int | None:
    pem, _ = read_file(path, _REVOKED, size_max=TLS_FILE_SIZE_MAX)
    try:
        ends_at = revocations_end_at(pem)
        trusted = context.cert_store_stats()["x509"]
        context.load_verify_locations(cafile=path)
        if context.cert_store_stats()["x509"] != trusted:
            raise ValueError("it has certificates too, which would be trusted")
    except (ValueError, OSError) as error:
        raise unusable(_REVOKED, path, explain(error)) from error
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    return ends_at


def explain(error: Exception) -> str:
    """Return an error of OpenSSL in words, without the places in its sources."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return str(error)


def signature_of(path: str) -> tuple[int, int, int] | None:
    """Return what changes when the file at a path does; None where none is there."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError for a path that no file can have
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
