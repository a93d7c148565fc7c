"""A service whose requests are admitted at the rates of their connection and their user (spec/protocol.md, section 8).

A node without rates has none of these, and so pays nothing for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.errors import Code, failure
from haptera.node.services.submitters import submitter_of
from haptera.peer import Request, Service

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from haptera.node.metrics import Metrics
    from haptera.node.request_rates import RequestRates, TokenBucket
    from haptera.peer import Peer

_KEY: Final = "request_rate"


class RatedService(Service):
    """Stands before a service, and refuses the requests beyond the rates with 3008, before anything of them is read.

    ``clock`` gives seconds, and is never set.
    """

    def __init__(self, service: Service, rates: RequestRates, metrics: Metrics, clock: Callable[[], float]) -> None:
        self.name: str = service.name  # type: ignore[misc]  # that of the service it stands before
        self._service = service
        self._rates = rates
        self._metrics = metrics
        self._clock = clock

    def methods(self) -> Sequence[str]:
        """The methods' names, for `session.describe`."""
        return self._service.methods()

    def handle(self, requests: list[Request]) -> None:
        """Hand on the requests that are admitted, the first ones, and refuse the others."""
        now, peer = self._clock(), requests[0].peer
        bucket = self._bucket(peer, now)
        admitted, wait_ms = self._rates.admits(bucket, submitter_of(peer).user, len(requests), now)
        refused = requests[admitted:]
        if admitted:
            self._service.handle(requests[:admitted] if refused else requests)
        self._metrics.requests_rate_limited_total += len(refused)
        for request in refused:
            request.fail(failure(Code.RATE_LIMITED, {"retry_after_ms": wait_ms}, outcome="not_applied"))

    def answers_read(self, peer: Peer, below: int) -> None:
        """Tell the service which answers a connection has read."""
        self._service.answers_read(peer, below)

    def _bucket(self, peer: Peer, now: float) -> TokenBucket | None:
        """The bucket of a connection, which all its services share."""
        if _KEY not in peer.attributes:
            peer.attributes[_KEY] = self._rates.session(now)
        found: TokenBucket | None = peer.attributes[_KEY]
        return found
