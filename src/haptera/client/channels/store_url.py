"""Which store a client talks to: its URL, checked, and the secrets in it never shown."""

from __future__ import annotations

import os
from typing import Any

import msgspec

from haptera import defaults
from haptera.client.channels.local_node import local_url
from haptera.errors import ConfigurationError
from haptera.peer import login_of, read_options, read_password_file
from haptera.transport import Address, parse, redact

URL_VARIABLE = "HAPTERA_URL"
USER_VARIABLE = "HAPTERA_USER"
PASSWORD_VARIABLE = "HAPTERA_PASSWORD"  # noqa: S105  # the name of the variable


def has_password(url: str) -> bool:
    """Whether a URL carries a password, readable or not."""
    try:
        return parse(url).password is not None
    except ConfigurationError:
        return redact(url) != url


def user_in(url: str | None) -> str | None:
    """The user that the URL names, or that of the environment; None for one that cannot be read."""
    try:
        return parse(default_url() if url is None else url).user
    except ConfigurationError:
        return None


def shown_url(url: str | None) -> str:
    """A URL, or the one that stands for None, safe to show."""
    return locate(default_url() if url is None else url, complete=False).shown


def default_url() -> str:
    """``HAPTERA_URL``, else the socket of a node that runs in this directory, else the default port here.

    Raises ``ConfigurationError`` for a socket that another user has put there.
    """
    return os.environ.get(URL_VARIABLE) or local_url() or defaults.URL


def is_named() -> bool:
    """Whether the environment names the store."""
    return bool(os.environ.get(URL_VARIABLE))


def user_beside(url: str | None, user: str | None) -> str | None:
    """The user that is named beside a URL, or None: the ``user`` that is given, else that of the environment where the
    store is of the environment too, or the default, and its URL names none.
    """
    if user is not None or url is not None:
        return user
    if parse(default_url()).user is not None:
        return None
    return os.environ.get(USER_VARIABLE) or None


class Given(msgspec.Struct, frozen=True):
    """A credential as it is given beside a URL, or a part of one. ``repr`` leaves the password out."""

    user: str | None = None
    password: str | None = None
    password_file: str | os.PathLike[str] | None = None

    def __repr__(self) -> str:
        return f"Given(user={self.user!r}, password_file={self.password_file!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Show no more than ``repr`` does: the one that this replaces shows every field."""
        return [("user", self.user), ("password_file", self.password_file)]


#: Nothing is given beside the URL.
NOTHING = Given()


def is_found_here(url: str | None) -> bool:
    """Whether the store is the node of the present directory, which is not named, but found."""
    return url is None and not is_named() and local_url() is not None


def check_used(url: str | None, given: Given) -> None:
    """Raise ``ConfigurationError`` for a credential that would be dropped: one for the node of the present directory,
    whose socket takes this process as it is, and a password in the environment that no user goes with.
    """
    in_environment = bool(os.environ.get(PASSWORD_VARIABLE))
    named = given.user is not None or given.password is not None or given.password_file is not None
    if is_found_here(url) and (named or in_environment):
        whose = "this password" if given.user is None else f"the user {given.user!r}"
        raise ConfigurationError(
            f"the node in this directory is found at its own socket, which takes this process without a login, and not "
            f"{whose}; to log in, name the node: --url haptera://HOST:PORT, or {URL_VARIABLE}; to go on without a "
            f"login, leave out --user and --password-file, {USER_VARIABLE} and {PASSWORD_VARIABLE}"
        )
    if in_environment and not named and user_in(url) is None:
        raise ConfigurationError(
            f"{PASSWORD_VARIABLE} holds a password, and no user is named for it: --user, {USER_VARIABLE} or the URL "
            "names one"
        )


class Location(msgspec.Struct, frozen=True):
    """Where a store is. The client dials ``address``; ``shown`` is safe for logs and errors; ``timeout`` is the URL's
    own default for calls in seconds, or None if it names none.
    """

    address: Address
    shown: str
    timeout: float | None


def locate(url: str, *, ping_interval: float | None = None, given: Given = NOTHING, complete: bool = True) -> Location:
    """Read a URL such as ``haptera://a:7457,b:7457?timeout=2`` or ``haptera+unix:///run/haptera.sock``.

    The options that are for the connection, ``ping_interval``, ``compression``, ``signed``, ``key_file`` and ``auth``,
    stay in ``address``, and so does the credential, whose parts may be ``given`` beside the URL. ``ping_interval`` in
    seconds takes the place of the URL's. Raises ``ConfigurationError`` for a URL that cannot be read, for an option
    that this client does not have, and for a credential that is given twice or, unless it need not be ``complete``, is
    not whole.
    """
    address = parse(url)
    if complete:
        address = _with_credential(address, given)
    shown = str(address)
    if ping_interval is not None:
        replaced = {**address.options, "ping_interval": str(ping_interval)}
        address = msgspec.structs.replace(address, options=replaced)
    options = read_options(address)
    if complete:
        login_of(address, None, None, options.auth, certified=False)
    kept = {name: value for name, value in address.options.items() if name != "timeout"}
    return Location(msgspec.structs.replace(address, options=kept), shown, options.timeout)


def _with_credential(address: Address, given: Given) -> Address:
    """Return the address with the user and the password, wherever they are given.

    A password in the environment is for a user that is named, and for no other store than that of the user.
    """
    shown = str(address)
    if given.user is not None and address.user is not None:
        raise ConfigurationError(f"{shown}: a user is given in the URL and beside it")
    user = address.user if given.user is None else given.user
    ways = [address.password is not None, given.password is not None, given.password_file is not None]
    if sum(ways) > 1:
        raise ConfigurationError(f"{shown}: a password is given in more than one way")
    password = address.password if given.password is None else given.password
    if given.password_file is not None:
        password = read_password_file(given.password_file)
    if user is not None and password is None:
        password = os.environ.get(PASSWORD_VARIABLE)
    if user is not None and password is None:
        raise ConfigurationError(
            f"{shown}: the user has no password: it is in the URL, in a file (password_file), or in {PASSWORD_VARIABLE}"
        )
    return msgspec.structs.replace(address, user=user, password=password)
