"""The users that may come in at a listener of a node (spec/protocol.md, section 5.1).

The listener leads the exchange; a `NodeAuthenticator` answers its questions. Where no proof is asked for, a
listener has none of these.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Protocol

from haptera.access_rules import LOCAL_USER
from haptera.peer import Identity
from haptera.security import SCRAM_SHA_256, Verifier, decoy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from haptera.errors import Failure
    from haptera.node.login_failures import LoginFailures
    from haptera.node.visitor import Visitor
    from haptera.state import Access

    #: Gives the identity that a peer has without a further proof; None for one that has to prove its identity.
    Implied = Callable[[Visitor], Identity | None]

#: The mechanisms of a node, best first. The listener leaves out those that a connection is not fit for.
MECHANISMS: Final = ("EXTERNAL", SCRAM_SHA_256, "PLAIN")
#: The user of the operating system that may do everything on a machine anyway.
_ROOT: Final = 0


class External(Protocol):
    """The users that client certificates, and users of this machine, stand for."""

    def of_certificate(self, names: Sequence[str]) -> str | None:
        """The user of a certificate with these URIs and DNS names, in its order."""

    def of_uid(self, uid: int) -> str | None:
        """The user of a process of this machine."""


def external_name(external: External, peer: Visitor) -> str | None:
    """Return the name of the user that a peer's certificate or process stands for, be there such a user or not."""
    credentials = peer.credentials
    if credentials is None:
        return external.of_certificate(peer.certificate_names)
    return external.of_uid(credentials.uid)


class NodeAuthenticator:
    """Answers for one listener.

    ``access`` has the users, ``now_ms`` is the time by which tokens expire, and ``secret`` that of the decoys.
    ``external`` says whom certificates stand for, and ``implied`` who a peer is that needs no proof. ``failures`` are
    those of the node, at all its listeners. ``came_in`` is told each identity, and may end the connection.
    """

    def __init__(
        self,
        access: Access,
        now_ms: Callable[[], int],
        secret: bytes,
        external: External,
        implied: Implied,
        failures: LoginFailures,
        came_in: Callable[[Visitor, Identity], None],
    ) -> None:
        assert secret, "a decoy of no secret is known to everyone"
        self._access = access
        self._now_ms = now_ms
        self._secret = secret
        self._external = external
        self._implied = implied
        self._failures = failures
        self._came_in = came_in

    def mechanisms(self, peer: Visitor) -> tuple[str, ...]:
        """Return the ways in which a peer may prove its identity; none where it needs no proof."""
        return MECHANISMS if self.identity_of(peer) is None else ()

    def implied(self, peer: Visitor) -> Identity:
        """Return the identity of a peer that needs no proof."""
        identity = self.identity_of(peer)
        assert identity is not None, "its identity was to be proved"
        self.entered(peer, identity)
        return identity

    def identity_of(self, visitor: Visitor) -> Identity | None:
        """Return the identity of one that needs no proof; None of one that does."""
        return self._implied(visitor)

    def entered(self, visitor: Visitor, identity: Identity) -> None:
        """Take note of one that has its identity without a proof."""
        self._came_in(visitor, identity)

    def external(self, peer: Visitor) -> str | None:
        """Return the user that a peer's certificate or process stands for, if there is such a user and it may come in.

        A token is no user: a certificate with the name of one stands for no user.
        """
        name = external_name(self._external, peer)
        user = None if name is None else self._access.users.get(name)
        return None if user is None or user.disabled else name

    def login(self, name: str) -> tuple[Verifier, bool]:
        """Return the verifier of a user or a token, and whether it may come in.

        For one that is unknown, or has no verifier, it is the decoy of this name. The decoy is made for each name, so
        that the time of an answer does not tell which names have a verifier.
        """
        hidden = decoy(self._secret, name)
        stored, admitted = self._access.login(name, self._now_ms())
        found = hidden if stored is None else stored
        verifier = Verifier(found.salt, found.iterations, found.stored_key, found.server_key)
        return verifier, admitted and stored is not None

    def refuses(self, peer: Visitor, name: str) -> Failure | None:
        """Return 2003 where a peer may not try to be a user now, because of failures of before."""
        return self._failures.refuses(peer, name)

    def ended(self, peer: Visitor, name: str, mechanism: str, reason: str | None) -> None:
        """Take note of the end of an attempt."""
        self._failures.ended(peer, name, mechanism, reason)
        if reason is None and peer.identity is not None:
            self._came_in(peer, peer.identity)


def of_users(peer: Visitor) -> Identity | None:
    """Of a listener where each peer has to prove its identity."""
    return None


def of_local_socket(peer: Visitor) -> Identity | None:
    """Of the socket in the data directory: who runs the node could read its files, and so could root."""
    credentials = peer.credentials
    if credentials is None or credentials.uid not in {os.geteuid(), _ROOT}:
        return None
    return Identity(LOCAL_USER, "local")


def of_signing_key(user: str) -> Implied:
    """Of a listener whose peers have the pre-shared key: they act as one user."""
    identity = Identity(user, "PSK")
    return lambda peer: identity
