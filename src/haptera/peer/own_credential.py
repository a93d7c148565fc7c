"""The credential by which a dialling side proves who its user is (spec/protocol.md, section 5.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from haptera.access_rules import is_name, is_password
from haptera.errors import ConfigurationError
from haptera.peer.authentication import EXTERNAL, PLAIN, SCRAM

if TYPE_CHECKING:
    from haptera.transport import Address

#: The values of ``auth`` in a URL, and their mechanisms.
MECHANISMS: Final = {"scram": SCRAM, "external": EXTERNAL, "plain": PLAIN}


class OwnCredential(msgspec.Struct, frozen=True):
    """A mechanism with the user and the password that it needs, if any. Neither ``str`` nor ``repr`` shows a password.

    One that is ``optional`` is used where the other side asks for a proof, and is no reason to refuse a side that asks
    for none.
    """

    mechanism: str
    user: str = ""
    password: str = ""
    optional: bool = False

    def __repr__(self) -> str:
        return f"OwnCredential({self.mechanism!r}, {self.user!r})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Show no more than ``repr`` does: the one that this replaces shows every field."""
        return [("mechanism", self.mechanism), ("user", self.user)]


def login_of(
    address: Address, user: str | None, password: str | None, auth: str | None, *, certified: bool
) -> OwnCredential | None:
    """Return the credential of a URL and of the keywords beside it, or None if there is none.

    ``auth`` is the URL's option, ``certified`` says whether this side has a certificate, or dials a Unix socket. Raises
    ``ConfigurationError`` for a credential that is given twice, or is not whole; no password is repeated.
    """
    if user is not None and address.user is not None:
        raise ConfigurationError(f"{address}: a user is given in the URL and beside it")
    if password is not None and address.password is not None:
        raise ConfigurationError(f"{address}: a password is given in the URL and beside it")
    user = address.user if user is None else user
    password = address.password if password is None else password
    mechanism = SCRAM if auth is None else MECHANISMS[auth]
    if mechanism == EXTERNAL:
        if user is not None or password is not None:
            raise ConfigurationError(f"{address}: auth=external takes no user and no password")
        return OwnCredential(EXTERNAL)
    if user is None and password is None and auth is None:
        return OwnCredential(EXTERNAL, optional=True) if certified else None
    if user is None or password is None:
        missing = "user" if user is None else "password"
        raise ConfigurationError(f"{address}: a user and a password belong together, and the {missing} is missing")
    if not is_name(user):
        raise ConfigurationError(f"{address}: the user's name is not one: 1 to 256 bytes without control characters")
    if not is_password(password):
        raise ConfigurationError(f"{address}: the password is not one: 1 to 1,024 bytes without NUL")
    return OwnCredential(mechanism, user, password)
