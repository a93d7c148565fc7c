"""The attempts to authenticate at all listeners of a node: counted, recorded, and refused where too many have failed
(docs/security.md, "Failed authentication").
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.errors import Code, Failure, failure
from haptera.peer import address_of
from haptera.security import LoginThrottle

if TYPE_CHECKING:
    from collections.abc import Callable

    from haptera.node.metrics import Metrics
    from haptera.node.services.recorded_requests import RecordedRequests
    from haptera.node.visitor import Visitor

#: The name and the address of an attempt that is under way, among the attributes of its connection: one at a time.
_KEY: Final = "haptera.login"
_TOO_SOON: Final = "it came too soon after others that have failed"


class LoginFailures:
    """Judges and counts the attempts. ``clock`` gives seconds, and is never set."""

    def __init__(self, metrics: Metrics, recorded: RecordedRequests, clock: Callable[[], float]) -> None:
        self._metrics = metrics
        self._recorded = recorded
        self._clock = clock
        self._throttle = LoginThrottle()

    def refuses(self, peer: Visitor, name: str) -> Failure | None:
        """Begin an attempt, or return why it may not be made now (2003). One that names no user has failed already."""
        if not name:
            return None
        address = address_of(peer.remote, peer.credentials)
        wait_ms = self._throttle.refuses(name, address, self._clock())
        if wait_ms is None:
            peer.attributes[_KEY] = name, address
            return None
        self._metrics.logins_failed_total += 1
        self._recorded.ended(peer, name, "", _TOO_SOON, Code.AUTHENTICATION_LOCKED)
        return failure(Code.AUTHENTICATION_LOCKED, {"retry_after_ms": wait_ms}, outcome="not_applied")

    def ended(self, peer: Visitor, name: str, mechanism: str, reason: str | None) -> None:
        """Take note of the end of an attempt, be it one that was malformed and named no user."""
        begun: tuple[str, str] | None = peer.attributes.pop(_KEY, None)
        if begun is None:
            self._throttle.malformed(address_of(peer.remote, peer.credentials), self._clock())
        else:
            self._throttle.ended(*begun, reason is None, self._clock())
        self._recorded.ended(peer, name, mechanism, reason)
        if reason is None:
            self._metrics.logins_total += 1
        else:
            self._metrics.logins_failed_total += 1
