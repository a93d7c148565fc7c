"""The rules of names, passwords, verifiers and permissions (spec/protocol.md, section 5).

The exchange that authenticates a user judges by these rules, and so does a store that keeps its users. So no user can
be made whom no exchange could name.
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal, get_args

#: The permissions: those that a grant gives on the keys of its pattern, and those that are of the node as a whole.
KeyPermission = Literal["read", "write", "delete", "scan", "watch", "lease"]
NodePermission = Literal["admin", "user_admin", "backup", "restore", "metrics", "cluster"]
Permission = Literal[KeyPermission, NodePermission]
KEY_PERMISSIONS: Final[tuple[KeyPermission, ...]] = get_args(KeyPermission)
NODE_PERMISSIONS: Final[tuple[NodePermission, ...]] = get_args(NodePermission)
PERMISSIONS: Final[tuple[Permission, ...]] = (*KEY_PERMISSIONS, *NODE_PERMISSIONS)

#: Bytes of UTF-8 in the name of a user: more than any address of a mailbox or a service has.
NAME_SIZE_MAX: Final = 256
#: Bytes of UTF-8 in a password: a sentence of many lines, and one that is hashed in no time.
PASSWORD_SIZE_MAX: Final = 1024
#: Bytes of a salt that a dialer takes, and of each salt of a store. Salts of one size tell nothing about users.
SALT_SIZE_MIN: Final = 16
SALT_SIZE_MAX: Final = 64
SALT_SIZE: Final = 16
#: Iterations of PBKDF2 that a dialer makes: below, a stolen verifier is guessed too fast (RFC 7677); above, an acceptor
#: could keep it busy.
ITERATIONS_MIN: Final = 4_096
ITERATIONS_MAX: Final = 1_000_000
#: Iterations of a new verifier, as OWASP recommends them for PBKDF2 with SHA-256. They take the dialer 160 ms of CPU,
#: once in the life of its process, and a guesser as much for each guess. One number for all tells nothing about users.
ITERATIONS: Final = 600_000

#: Bytes of each key of a verifier: of SHA-256.
VERIFIER_KEY_SIZE: Final = 32

#: Bytes of the secret that the decoys of unknown users are made of.
NODE_SECRET_SIZE: Final = 32

#: The built-in role that may do everything; at least one user has it.
ADMIN_ROLE: Final = "admin"
#: The user of the socket in a node's data directory, who may do everything. No user that is stored has this name.
LOCAL_USER: Final = "local"
#: How the name of a token begins, and no user's name does.
TOKEN_PREFIX: Final = "token:"  # noqa: S105  # of a name
#: Bytes of UTF-8 in the pattern of a grant: it is matched against the key of each request.
PATTERN_SIZE_MAX: Final = 256
#: The pattern that every key matches.
EVERY_KEY: Final = "*"

#: A control character could forge a line of a log; NUL ends a name in PLAIN.
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")


def is_name(text: str) -> bool:
    """Whether a text can be the name of a user: 1 to 256 bytes of UTF-8 without a control character."""
    return 0 < len(text) <= NAME_SIZE_MAX and _CONTROL.search(text) is None and _size(text) <= NAME_SIZE_MAX


def is_user_name(text: str) -> bool:
    """Whether a text can be the name of a user that is stored, and no token."""
    return is_name(text) and text != LOCAL_USER and not text.startswith(TOKEN_PREFIX)


def is_token_name(text: str) -> bool:
    """Whether a text can be the name of a token."""
    return is_name(text) and text.startswith(TOKEN_PREFIX) and text != TOKEN_PREFIX


def why_no_name(text: str) -> str:
    """Why a text is not the name that was asked for."""
    if is_token_name(text):
        return "a token, which is no user: add_token makes one, and remove_token ends it"
    return "no name that can be given here"


def is_password(text: str) -> bool:
    """Whether a text can be a password: 1 to 1,024 bytes of UTF-8 without NUL. Whether it is a good one is a policy."""
    return 0 < len(text) <= PASSWORD_SIZE_MAX and "\0" not in text and _size(text) <= PASSWORD_SIZE_MAX


def is_verifier(verifier: Any) -> bool:
    """Whether a store can have a verifier: an exchange takes its iterations and its keys, and its salt has one size."""
    return (
        len(verifier.salt) == SALT_SIZE
        and ITERATIONS_MIN <= verifier.iterations <= ITERATIONS_MAX
        and len(verifier.stored_key) == len(verifier.server_key) == VERIFIER_KEY_SIZE
    )


def is_new_verifier(verifier: Any) -> bool:
    """Whether a command can bring a verifier: it looks like that of every other user, and like a decoy."""
    return is_verifier(verifier) and verifier.iterations == ITERATIONS


def _size(text: str) -> int:
    """Bytes of a text; more than any limit for one with lone surrogates, which UTF-8 does not have."""
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return PASSWORD_SIZE_MAX + 1
