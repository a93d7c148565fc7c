"""How a listener has the other side of each connection prove who it is (spec/protocol.md, section 5.1).

A program that hosts services gives ``haptera.listen`` an ``Authenticator``: it knows the users, and the listener leads
the exchange.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from haptera.security import SCRAM_SHA_256

if TYPE_CHECKING:
    from haptera.errors import Failure
    from haptera.peer.identity import Identity
    from haptera.peer.peer import Peer
    from haptera.security import Verifier

#: The mechanisms: a password that never travels, the dialler's certificate or process, and a password as it is.
SCRAM: Final = SCRAM_SHA_256
EXTERNAL: Final = "EXTERNAL"
PLAIN: Final = "PLAIN"


class Authenticator(Protocol):
    """Knows the users of a listener.

    Its methods are called in the loop of the connection, so they do not wait for anything. An exception of theirs is
    logged, and the attempt fails.
    """

    def mechanisms(self, peer: Peer) -> tuple[str, ...]:
        """Return the ways in which a peer may prove its identity; none where it needs no proof.

        Asked once, when HELLO has come. PLAIN counts inside TLS and on a Unix socket alone, EXTERNAL where ``external``
        names a user.

        Args:
            peer: The other side.

        Returns:
            The names of the mechanisms.
        """

    def implied(self, peer: Peer) -> Identity:
        """Return the identity of a peer that needs no proof, or has proved it by the pre-shared key of its frames.

        Args:
            peer: The other side.

        Returns:
            Its identity.
        """

    def external(self, peer: Peer) -> str | None:
        """Return the user that the peer's certificate, or its process, stands for.

        Args:
            peer: The other side.

        Returns:
            The user's name, or None if it stands for no user.
        """

    def login(self, name: str) -> tuple[Verifier, bool]:
        """Return a user's verifier, and whether the user may come in.

        Args:
            name: The user's name.

        Returns:
            The verifier, or for an unknown user a decoy (``haptera.authentication.decoy``), so that no exchange tells
            which users there are; and whether the user may come in. It is asked again at the end of an exchange, which
            fails if the answer is another one than at its beginning.
        """

    def refuses(self, peer: Peer, name: str) -> Failure | None:
        """Return why a peer may not try to be a user now.

        Asked once for each attempt, as soon as its name is known, or has turned out to be missing. An attempt that may
        be made reaches ``ended`` once, at the latest when its connection ends, and no other one does. So an attempt
        may be counted here, and until it has ended.

        Args:
            peer: The other side.
            name: The user that it names; empty if its message names none.

        Returns:
            The failure (2003, with ``retry_after_ms``), or None if it may try.
        """

    def ended(self, peer: Peer, name: str, mechanism: str, reason: str | None) -> None:
        """Take note of the end of an attempt that ``refuses`` has let begin.

        Args:
            peer: The other side. Its ``identity`` is set by then if it came in.
            name: The user that it named; empty if its message named none.
            mechanism: How it tried.
            reason: Why it failed, in a sentence that holds nothing of the peer's; None if it came in.
        """
