"""Users with passwords, for a program that keeps them itself and hosts services for them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from haptera.peer.authentication import SCRAM
from haptera.peer.identity import ANYONE, Identity
from haptera.security import Verifier, decoy, new_verifier

if TYPE_CHECKING:
    from collections.abc import Mapping

    from haptera.errors import Failure
    from haptera.peer.peer import Peer

_SECRET_SIZE: Final = 32


class PasswordUsers:
    """An ``Authenticator`` of users with passwords, who prove them by SCRAM-SHA-256.

    It keeps verifiers, by which no one can log in. A program with other ways in, or limits on attempts, extends it.
    """

    def __init__(self, verifiers: Mapping[str, Verifier]) -> None:
        """Take the users.

        Args:
            verifiers: The verifier of each user, by the user's name.
        """
        self._verifiers = dict(verifiers)
        self._secret = os.urandom(_SECRET_SIZE)

    def mechanisms(self, peer: Peer) -> tuple[str, ...]:
        """Return the one mechanism.

        Args:
            peer: The other side.

        Returns:
            SCRAM-SHA-256.
        """
        return (SCRAM,)

    def implied(self, peer: Peer) -> Identity:
        """Return the identity of a peer that has the pre-shared key of a listener: anyone's.

        Args:
            peer: The other side.

        Returns:
            The identity without a user.
        """
        return ANYONE

    def external(self, peer: Peer) -> str | None:
        """Return None: no certificate stands for a user.

        Args:
            peer: The other side.

        Returns:
            None.
        """
        return None

    def login(self, name: str) -> tuple[Verifier, bool]:
        """Return a user's verifier, or a decoy, and whether there is such a user.

        Args:
            name: The user's name.

        Returns:
            The verifier, and whether the user may come in.
        """
        hidden = decoy(self._secret, name)  # made for each name: the time of an answer does not tell which there are
        verifier = self._verifiers.get(name)
        return (hidden, False) if verifier is None else (verifier, True)

    def refuses(self, peer: Peer, name: str) -> Failure | None:
        """Return None: each attempt is judged.

        Args:
            peer: The other side.
            name: The user that it names.

        Returns:
            None.
        """
        return None

    def ended(self, peer: Peer, name: str, mechanism: str, reason: str | None) -> None:
        """Take note of the end of an attempt: nothing by default.

        Args:
            peer: The other side.
            name: The user that it named.
            mechanism: How it tried.
            reason: Why it failed; None if it came in.
        """


def verifier_for(password: str) -> Verifier:
    """Make the verifier of a password, which takes a sixth of a second of CPU.

    Args:
        password: 1 to 1,024 bytes of UTF-8 without NUL.

    Returns:
        The verifier: its ``salt``, ``iterations``, ``stored_key`` and ``server_key`` are to be kept like a password's
        hash, secret.
    """
    return new_verifier(password, os.urandom)
