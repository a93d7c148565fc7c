"""The needs of a store before it can ask for proofs of identity: a secret for its decoys, and an administrator.

Both are made at the first start with authentication, of a store that was there before as well.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from typing import TYPE_CHECKING, Final, Literal

from haptera.access_rules import ADMIN_ROLE, NODE_SECRET_SIZE
from haptera.errors import ConfigurationError, Failure
from haptera.node.commands import ANONYMOUS, Envelope
from haptera.node.option_kinds import ADMIN_PASSWORD_VARIABLE
from haptera.node.services.admin import administer
from haptera.security import new_verifier, password_refusal
from haptera.state import access_operations

if TYPE_CHECKING:
    from haptera.node.config import NodeConfig
    from haptera.node.node import Node
    from haptera.state import Result, Write

_logger = logging.getLogger(__name__)

#: A password that a node makes: letters and digits that are not mistaken for each other, 124 bits of chance.
_LETTERS: Final = "abcdefghjkmnpqrstuvwxyz23456789"
_GROUPS: Final = 5
_GROUP_SIZE: Final = 5
_FILE_NAME: Final = "admin password file"


class AdminPassword:
    """The place of the first administrator's password: a text, or a file; neither where the node makes one."""

    def __init__(self, text: str = "", file: str | None = None) -> None:
        self._text = text
        self._file = file
        self._content: str | None = None  # of the file, which is read once

    @classmethod
    def take(cls, config: NodeConfig) -> AdminPassword:
        """Take the variable out of the environment, so that no process that the node starts has it.

        Raises ConfigurationError where two places are given.
        """
        text = os.environ.pop(ADMIN_PASSWORD_VARIABLE, "")  # an empty variable is one that is not set
        if text and config.admin_password_file is not None:
            raise ConfigurationError(
                f"{ADMIN_PASSWORD_VARIABLE} and admin_password_file are given: there is one password, from one place"
            )
        return cls(text, config.admin_password_file)

    @property
    def origin(self) -> Literal["generated", "file", "environment"]:
        """Where the password is from."""
        if self._file is not None:
            return "file"
        return "environment" if self._text else "generated"

    @property
    def place(self) -> str:
        """The name of the place, for errors."""
        return f"the {_FILE_NAME} {self._file}" if self._file is not None else ADMIN_PASSWORD_VARIABLE

    def read(self) -> str | None:
        """The password; None where the node is to make one. Raises ConfigurationError, which shows nothing of it."""
        if self._file is None:
            return self._text or None
        if self._content is not None:
            return self._content
        from haptera.transport import read_secret_file  # noqa: PLC0415  # the rules of any file that holds a secret

        try:
            text = read_secret_file(self._file, _FILE_NAME).decode()
        except UnicodeDecodeError:
            raise ConfigurationError(f"{self.place} cannot be used: it is not UTF-8") from None
        self._content = text.removesuffix("\n").removesuffix("\r")
        return self._content

    def chosen_for(self, name: str) -> str | None:
        """The password for a user of this name; None where the node is to make one. Raises ConfigurationError for one
        that is too weak, too.
        """
        text = self.read()
        refusal = None if text is None else password_refusal(text, name)
        if refusal is not None:
            raise ConfigurationError(
                f"{self.place} cannot be the password of {name!r}: {refusal.message}: {refusal.details['rule']}"
            )
        return text


def check_password(config: NodeConfig, password: AdminPassword) -> None:
    """Raise ConfigurationError for a password that the start cannot use which makes the data directory.

    A directory that is there may have an administrator, and then no password is read.
    """
    if not config.no_auth and not _holds_anything(config.data_dir):
        password.chosen_for(config.admin_user)


def _holds_anything(path: str) -> bool:
    try:
        with os.scandir(path) as found:
            return any(found)
    except OSError:
        return False  # opening it says why


async def make_administrator(node: Node, password: AdminPassword) -> str | None:
    """Make the administrator of a store that has none.

    Returns the password that was generated for it, which is stored nowhere: its caller shows it once. None where none
    was generated. Raises ConfigurationError for a password that is too weak, and for a user of this name that is no
    administrator.
    """
    config, access = node.config, node.access
    if config.no_auth:
        return None
    if access.has_administrator:
        if password.origin != "generated":
            _logger.info(
                "admin_password_ignored",
                extra={
                    "place": password.place,
                    "meaning": "there is an administrator; haptera passwd changes passwords",
                },
            )
        return None
    name = config.admin_user
    if name in access.users:
        raise ConfigurationError(
            f"the store has no administrator, and its user {name!r} is none: name another one with admin_user, or "
            "start it with no_auth and give the user a password and the role admin"
        )
    given = password.chosen_for(name)
    text = given if given is not None else generated_password()
    verifier = await asyncio.get_running_loop().run_in_executor(None, new_verifier, text, secrets.token_bytes)
    stored = access_operations.StoredVerifier(
        verifier.salt, verifier.iterations, verifier.stored_key, verifier.server_key
    )
    result = await administer(node, "add_user", access_operations.AddUser(name, stored, [ADMIN_ROLE]))
    if isinstance(result, Failure):
        _logger.error(
            "no_administrator",
            extra={"reason": result.message, "help": "make room and start again; the local socket needs no password"},
        )
        return None
    _logger.info("administrator_made", extra={"user": name, "password": password.origin})
    return None if given is not None else text


async def node_secret(node: Node) -> bytes:
    """Give the secret of the decoys of a store, which gets one where it has none.

    A store that cannot be written to has one for as long as it runs, because reads go on.
    """
    access = node.access
    if not access.secret:
        result = await _change(node, access_operations.SetNodeSecret(secrets.token_bytes(NODE_SECRET_SIZE)))
        if isinstance(result, Failure):
            _logger.warning("no_node_secret", extra={"reason": result.message, "meaning": "it has one until it stops"})
            return secrets.token_bytes(NODE_SECRET_SIZE)
    return access.secret


def generated_password() -> str:
    """Make a password that is copied without mistakes."""
    groups = ("".join(secrets.choice(_LETTERS) for _ in range(_GROUP_SIZE)) for _ in range(_GROUPS))
    return "-".join(groups)


async def _change(node: Node, op: Write) -> Result:
    """Make one change in the name of the node, and wait until it is durable."""
    done: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()

    def answered(results: list[Result]) -> None:
        if not done.done():
            done.set_result(results)

    node.commands.submit(ANONYMOUS, [Envelope(op)], answered)
    (result,) = await done
    return result
