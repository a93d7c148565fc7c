"""The next step of a command whose certificate stands for no user of the node."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from haptera.client import default_url
from haptera.errors import Code, ConfigurationError, ServerError
from haptera.transport import parse

if TYPE_CHECKING:
    from haptera.errors import HapteraError


def certificate_step(error: HapteraError, url: str | None) -> str:
    """The next step where a login is missing although the URL names a certificate; empty for every other error."""
    if not isinstance(error, ServerError) or error.code != Code.AUTHENTICATION_REQUIRED:
        return ""
    try:
        path = parse(default_url() if url is None else url).options.get("cert")
    except ConfigurationError:
        return ""
    if path is None:
        return ""
    name = _first_name(path)
    shown = "" if name is None else f", {name!r}"
    user = "NAME" if name is None else shlex.quote(name)
    return (
        f"no enabled user of the node has the first name (SAN) of the certificate{shown}: "
        f"`haptera user add {user} --no-password --role ROLE` makes one, in the directory where the node was started"
    )


def _first_name(path: str) -> str | None:
    """The first URI or DNS name of a certificate, as the node reads it; None where it cannot be told here."""
    try:
        from cryptography import x509  # a part of the extra of nodes
    except ModuleNotFoundError:
        return None
    try:
        with open(path, "rb") as file:
            certificate = x509.load_pem_x509_certificate(file.read())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return None
    return next((name.value for name in names if isinstance(name, x509.UniformResourceIdentifier | x509.DNSName)), None)
