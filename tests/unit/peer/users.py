"""A listener's users, as the tests of authentication have them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haptera.peer import SCRAM, Identity
from haptera.security import Verifier, decoy, verifier_of

if TYPE_CHECKING:
    from haptera import Failure, Peer

NAME, PASSWORD = "app", "correct horse battery"
#: As few iterations as are allowed, because each exchange of a test derives the keys again.
ITERATIONS = 4096
VERIFIER = verifier_of(PASSWORD, bytes(range(16)), ITERATIONS)
SECRET = bytes(32)


class Users:
    """One user with a password, and a record of the attempts."""

    def __init__(self, *mechanisms: str, certificates: dict[str, str] | None = None) -> None:
        self.offered = mechanisms or (SCRAM,)
        self.certificates = certificates or {}
        self.uids: dict[int, str] = {}
        self.admitted = True
        self.refusal: Failure | None = None
        #: The end of each attempt: the user, the mechanism, and the reason of a failure.
        self.ends: list[tuple[str, str, str | None]] = []
        self.asked: list[str] = []
        #: The user of each attempt that was let begin.
        self.begun: list[str] = []

    def mechanisms(self, peer: Peer) -> tuple[str, ...]:
        return () if self.offered == ("none",) else self.offered

    def implied(self, peer: Peer) -> Identity:
        return Identity("implied", "none")

    def external(self, peer: Peer) -> str | None:
        if peer.credentials is not None and peer.credentials.uid in self.uids:
            return self.uids[peer.credentials.uid]
        return next((self.certificates[name] for name in peer.certificate_names if name in self.certificates), None)

    def login(self, name: str) -> tuple[Verifier, bool]:
        self.asked.append(name)
        if name == NAME:
            return VERIFIER, self.admitted
        hidden = decoy(SECRET, name)
        return Verifier(hidden.salt, ITERATIONS, hidden.stored_key, hidden.server_key), False

    def refuses(self, peer: Peer, name: str) -> Failure | None:
        if self.refusal is None:
            self.begun.append(name)
        return self.refusal

    def ended(self, peer: Peer, name: str, mechanism: str, reason: str | None) -> None:
        self.ends.append((name, mechanism, reason))
