"""Secrets that tests give to nodes and clients, and the search for them in all that a test run leaves.

Each kind begins with words of its own. The tests use these constants wherever a secret has no other meaning;
`tests/support/leaks.py` looks for them after each test. The private keys of TLS are noted when they are made.
"""

from __future__ import annotations

import base64
import json
import re
import urllib.parse
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

PASSWORD: Final = "planted-password correct horse battery staple"
OTHER_PASSWORD: Final = "planted-password another horse with a tractor"
SIGNING_KEY: Final = b"planted-signing-key that two sides have"
MASTER_KEY: Final = b"planted-master-key of 32 bytes.."
VALUE: Final = b"planted-value that no disk and no log shows"

#: The beginnings, which are found in longer secrets too, and in parts of these.
_BEGINNINGS: Final = ("planted-password", "planted-signing-key", "planted-master-key", "planted-value")
#: Keys of TLS that are remembered in one process: those of some hundred tests.
_NOTED_MAX: Final = 256

_noted: deque[bytes] = deque(maxlen=_NOTED_MAX)


def forms(secret: bytes) -> set[bytes]:
    """The ways in which a text may show a secret."""
    plain = base64.b64encode(secret).rstrip(b"=")
    text = secret.decode("utf-8", "backslashreplace")
    return {
        secret,
        secret.hex().encode(),
        secret.hex().upper().encode(),
        plain,
        plain.translate(bytes.maketrans(b"+/", b"-_")),
        repr(secret)[2:-1].encode(),
        json.dumps(text)[1:-1].encode(),
        urllib.parse.quote(secret).encode(),
        urllib.parse.quote_plus(secret).encode(),
    }


def _any_of(secrets: Iterable[bytes]) -> re.Pattern[bytes]:
    found = {form for secret in secrets for form in forms(secret)}
    return re.compile(b"|".join(re.escape(form) for form in sorted(found, key=len, reverse=True)))


_WHOLE: Final = (PASSWORD.encode(), OTHER_PASSWORD.encode(), SIGNING_KEY, MASTER_KEY, VALUE)
_PLANTED: Final = _any_of([*_WHOLE, *(each.encode() for each in _BEGINNINGS)])
_VALUES: Final = _any_of([VALUE, b"planted-value"])


def note_private_key(pem: bytes) -> None:
    """Have a key of TLS looked for as well: by a line from the midst of its text."""
    lines = [line for line in pem.splitlines() if line and not line.startswith(b"-")]
    _noted.append(lines[len(lines) // 2])


def found_in(text: bytes, *, values: bool = True) -> list[str]:
    """The planted secrets that a text shows, each with what stands around it; without ``values`` stored ones may."""
    found = [match.span() for match in _PLANTED.finditer(text) if values or not _VALUES.match(match[0])]
    for key in set(_noted):
        at = text.find(key)
        if at >= 0:
            found.append((at, at + len(key)))
    return [text[max(0, start - 60) : end + 20].decode("utf-8", "replace") for start, end in found]
