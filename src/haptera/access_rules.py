"""The rules of users' names, their passwords and their verifiers (spec/protocol.md, section 5.1).

The exchange that authenticates a user judges by these rules, and so does a store that keeps its users. So no user can
be made whom no exchange could name.
"""

from __future__ import annotations

import re
from typing import Final

#: Bytes of UTF-8 in the name of a user: more than any address of a mailbox or a service has.
NAME_SIZE_MAX: Final = 256
#: Bytes of UTF-8 in a password: a sentence of many lines, and one that is hashed in no time.
PASSWORD_SIZE_MAX: Final = 1024
#: Bytes of a salt that a dialer takes, and of each salt that Haptera makes. Salts of one size tell nothing about users.
SALT_SIZE_MIN: Final = 16
SALT_SIZE_MAX: Final = 64
SALT_SIZE: Final = 16
#: Iterations of PBKDF2 that a dialer makes: below, a stolen verifier is guessed too fast (RFC 7677); above, an acceptor
#: could keep it busy.
ITERATIONS_MIN: Final = 4_096
ITERATIONS_MAX: Final = 1_000_000
#: Iterations of a new verifier, as OWASP recommends them for PBKDF2 with SHA-256. They take the dialer 160 ms of CPU,
#: once in the life of its process, and a guesser as much for each guess.
ITERATIONS: Final = 600_000

#: A control character could forge a line of a log; NUL ends a name in PLAIN.
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")


def is_name(text: str) -> bool:
    """Whether a text can be the name of a user: 1 to 256 bytes of UTF-8 without a control character."""
    return 0 < len(text) <= NAME_SIZE_MAX and _CONTROL.search(text) is None and _size(text) <= NAME_SIZE_MAX


def is_password(text: str) -> bool:
    """Whether a text can be a password: 1 to 1,024 bytes of UTF-8 without NUL. Whether it is a good one is a policy."""
    return 0 < len(text) <= PASSWORD_SIZE_MAX and "\0" not in text and _size(text) <= PASSWORD_SIZE_MAX


def _size(text: str) -> int:
    """Bytes of a text; more than any limit for one with lone surrogates, which UTF-8 does not have."""
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return PASSWORD_SIZE_MAX + 1
