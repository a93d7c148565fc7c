"""SCRAM's keys (RFC 5802, section 3): those of the password's owner, and the verifier that a store keeps instead.

A verifier proves that a peer knows the password, and is no use for a login of its own. A user that is unknown, or has
no verifier, gets a decoy, which looks like a verifier and accepts nothing. So an exchange does not tell which users
there are.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from hashlib import pbkdf2_hmac, sha256
from typing import TYPE_CHECKING

from haptera.access_rules import ITERATIONS, SALT_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class ClientKeys:
    """The keys that follow from a password, a salt and a number of iterations. Their holder can log in with them."""

    client_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Verifier:
    """The half of a password that an acceptor keeps. It is secret too, because it can be guessed at offline."""

    salt: bytes = field(repr=False)
    iterations: int
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    def accepts(self, password: str) -> bool:
        """Whether it is the password. It takes as long as `derive_keys`, for each password."""
        keys = derive_keys(password, self.salt, self.iterations)
        return hmac.compare_digest(sha256(keys.client_key).digest(), self.stored_key)


def derive_keys(password: str, salt: bytes, iterations: int) -> ClientKeys:
    """Derive the keys of a password: 160 ms of CPU for the usual iterations, in which other threads of Python run."""
    salted = pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    return ClientKeys(hmac.digest(salted, b"Client Key", "sha256"), hmac.digest(salted, b"Server Key", "sha256"))


def new_verifier(password: str, entropy: Callable[[int], bytes]) -> Verifier:
    """Make the verifier of a new password. ``entropy`` gives as many random bytes as it is asked for."""
    return verifier_of(password, entropy(SALT_SIZE), ITERATIONS)


def verifier_of(password: str, salt: bytes, iterations: int) -> Verifier:
    """Make the verifier of a password with a salt."""
    keys = derive_keys(password, salt, iterations)
    return Verifier(salt, iterations, sha256(keys.client_key).digest(), keys.server_key)


def decoy(node_secret: bytes, name: str) -> Verifier:
    """Make the verifier that an unknown user seems to have, the same one each time. No password and no key fits it.

    Its salt has the size, and its iterations the number, of each verifier that a command brings (`is_new_verifier`).
    A name holds no NUL, so no other name's salt is one of these keys.
    """
    named = name.encode()
    salt = hmac.digest(node_secret, named, "sha256")[:SALT_SIZE]
    stored_key = hmac.digest(node_secret, named + b"\0stored key", "sha256")
    server_key = hmac.digest(node_secret, named + b"\0server key", "sha256")
    return Verifier(salt, ITERATIONS, stored_key, server_key)
