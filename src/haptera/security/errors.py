"""The one error of an exchange that authenticates a user."""

from __future__ import annotations

from haptera.errors import Code, Failure, HapteraError, failure


class ExchangeFailed(HapteraError):
    """The peer has not proved its identity, or has sent something that no honest peer sends.

    ``reason`` is for the log of this side alone. It is one of a few sentences of this package, never a text of the
    peer, and holds no secret.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def failure(self) -> Failure:
        """2002 as the peer is told it: the same for every reason, so that it tells an attacker nothing."""
        return failure(Code.AUTHENTICATION_FAILED)
