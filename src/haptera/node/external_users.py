"""The users that client certificates, and users of this machine, stand for (spec/protocol.md, section 5.1, EXTERNAL).

A file says it, in TOML::

    [certificates]              # names of a certificate, its URIs and DNS names
    "spiffe://prod/web" = "web"

    [uids]                      # numbers of users of this machine, at Unix sockets
    1000 = "ann"

Without the table ``certificates`` the first name of a certificate is the name of its user. Where it is there, names
that it lacks stand for no user.
"""

from __future__ import annotations

import os
import tomllib
from typing import TYPE_CHECKING, Any, Final

from haptera.access_rules import LOCAL_USER, is_user_name
from haptera.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: A line for each of 10,000 users.
FILE_SIZE_MAX: Final = 1024 * 1024
_CERTIFICATES: Final = "certificates"
_UIDS: Final = "uids"


class ExternalUsers:
    """The configuration of certificates and of the users of this machine.

    ``certificates`` is None where the first name of a certificate is its user's.
    """

    __slots__ = ("_certificates", "_uids")

    def __init__(self, certificates: Mapping[str, str] | None = None, uids: Mapping[int, str] | None = None) -> None:
        self._certificates = certificates
        self._uids = uids or {}

    def of_certificate(self, names: Sequence[str]) -> str | None:
        """The user of a certificate with these URIs and DNS names, in its order."""
        if self._certificates is None:
            return names[0] if names else None
        return next((self._certificates[name] for name in names if name in self._certificates), None)

    def of_uid(self, uid: int) -> str | None:
        """The user of a process of this machine."""
        return self._uids.get(uid)


def read_external_users(path: str | None) -> ExternalUsers:
    """Read the file, if there is one. Raises ConfigurationError."""
    if path is None:
        return ExternalUsers()
    tables = _read(path)
    for name in tables:
        if name not in {_CERTIFICATES, _UIDS}:
            raise _unusable(path, f"{name!r} is no table of it: there are {_CERTIFICATES} and {_UIDS}")
    certificates = _table(path, tables, _CERTIFICATES)
    uids = {_uid(path, name): user for name, user in (_table(path, tables, _UIDS) or {}).items()}
    return ExternalUsers(certificates, uids)


def _read(path: str) -> dict[str, Any]:
    from haptera.storage import open_regular  # noqa: PLC0415  # only a node that has such a file needs it

    try:
        with open(open_regular(path, os.O_RDONLY), "rb") as file:
            data = file.read(FILE_SIZE_MAX + 1)
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error
    if len(data) > FILE_SIZE_MAX:
        raise _unusable(path, f"it is larger than {FILE_SIZE_MAX} bytes")
    try:
        return tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _unusable(path, f"it is not a TOML file: {error}") from error


def _table(path: str, tables: dict[str, Any], name: str) -> dict[str, str] | None:
    table = tables.get(name)
    if table is None:
        return None
    if not isinstance(table, dict):
        raise _unusable(path, f"{name} is no table")
    for key, user in table.items():
        if not isinstance(user, str) or not is_user_name(user) or user == LOCAL_USER:
            raise _unusable(path, f"{key!r} in {name} is given no name of a user")
    return table


def _uid(path: str, text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise _unusable(path, f"{text!r} in {_UIDS} is no number of a user")
    return int(text)


def _unusable(path: str, reason: str) -> ConfigurationError:
    return ConfigurationError(f"the external users file {path} cannot be used: {reason}")
