"""The keys that a process has derived from its passwords, so that each new connection does not derive them again.

A key is found by a keyed digest, so that the table holds no password. Several threads may use it: a table is never
changed, but replaced by a new one.
"""

from __future__ import annotations

import hmac
from itertools import islice
from typing import TYPE_CHECKING, Final

from haptera.security.verifiers import derive_keys

if TYPE_CHECKING:
    from collections.abc import Callable

    from haptera.security.verifiers import ClientKeys

#: Keys that are kept: more than a program has servers and users. A server that sends a new salt each time only has the
#: oldest derived again.
KEPT_MAX: Final = 64
_DIGEST_KEY_SIZE: Final = 32


class SaltedPasswords:
    """The newest keys that were derived. ``entropy`` gives as many random bytes as it is asked for."""

    __slots__ = ("_digest_key", "_kept")

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._digest_key = entropy(_DIGEST_KEY_SIZE)
        self._kept: dict[bytes, ClientKeys] = {}

    def known(self, password: str, salt: bytes, iterations: int) -> ClientKeys | None:
        """The keys, if they were derived before."""
        return self._kept.get(self._place(password, salt, iterations))

    def derive(self, password: str, salt: bytes, iterations: int) -> ClientKeys:
        """The keys, which are derived if they are not known: a call for a thread."""
        place = self._place(password, salt, iterations)
        keys = self._kept.get(place)
        if keys is None:
            keys = derive_keys(password, salt, iterations)
            kept = self._kept
            newest = islice(kept.items(), max(0, len(kept) + 1 - KEPT_MAX), None)
            self._kept = {**dict(newest), place: keys}
        return keys

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._kept)

    def _place(self, password: str, salt: bytes, iterations: int) -> bytes:
        # The salt's size and the iterations have a fixed size, so no two of them give the same bytes.
        head = len(salt).to_bytes(4, "big") + iterations.to_bytes(8, "big")
        return hmac.digest(self._digest_key, head + salt + password.encode(), "sha256")
