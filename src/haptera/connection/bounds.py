"""The bounds of the numbers for a listener and a dialled connection, the options of a node among them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from haptera.connection.config import MESSAGE_SHARE_MAX, Budget
from haptera.errors import ConfigurationError
from haptera.wire import LIMITS, Limits

#: A day: a longer time is meant as for ever.
SECONDS_MAX: Final = 86_400.0

_CONNECTIONS_MAX: Final = 1_000_000
_RATE_MAX: Final = 1_000_000
_MODE_MAX: Final = 0o777
_IDEMPOTENCY_MS_MAX: Final = 2**32 - 1


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """A number from ``low`` to ``high``; with ``zero``, 0 too."""

    low: float
    high: float
    whole: bool = True
    zero: bool = False

    def check(self, value: object) -> float:
        """Return a number, as an int if it is to be a whole one. Raises ``ValueError`` for anything else."""
        if not isinstance(value, bool) and isinstance(value, int | float):
            if self.zero and value == 0:
                return 0
            # Written so that NaN, which compares with nothing, is refused too.
            if self.low <= value <= self.high and (not self.whole or value == int(value)):
                return int(value) if self.whole else float(value)
        raise ValueError(f"expected {self}, not {value!r}")

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        return f"{kind} from {self.low} to {self.high}" + (", or 0" if self.zero else "")


def seconds(low: float = 0.001, *, zero: bool = False) -> Bound:
    """Return the bound of a time in seconds."""
    return Bound(low=low, high=SECONDS_MAX, whole=False, zero=zero)


BUDGET: Final = Bound(low=MESSAGE_SHARE_MAX * LIMITS["max_message"].minimum, high=2**40)

#: By the keywords of ``haptera.listen`` and ``haptera.dial``, and by the names of a connection's limits.
BOUNDS: Final[dict[str, Bound]] = {
    "mode": Bound(low=0, high=_MODE_MAX),
    "max_connections": Bound(low=1, high=_CONNECTIONS_MAX),
    "max_half_open": Bound(low=1, high=_CONNECTIONS_MAX),
    "handshake_timeout_s": seconds(),
    "authentication_timeout_s": seconds(),
    "ping_interval_ms": Bound(low=1, high=int(SECONDS_MAX) * 1000, zero=True),
    "idle_timeout_s": seconds(),
    "write_timeout_s": seconds(),
    "frame_timeout_s": seconds(),
    "message_timeout_s": seconds(),
    **{name: Bound(low=limit.minimum, high=limit.maximum) for name, limit in LIMITS.items()},
    "budget": BUDGET,
    "idle_frames_burst": Bound(low=1, high=_RATE_MAX),
    "idle_frames_per_s": Bound(low=0.1, high=_RATE_MAX, whole=False),
    "idempotency_ms": Bound(low=0, high=_IDEMPOTENCY_MS_MAX),
}


def check_keywords(place: object, keywords: Mapping[str, Any]) -> None:
    """Check a given number; None stands for the default. Raises ``ConfigurationError``, which names ``place`` too."""
    for name, value in keywords.items():
        if value is None:
            continue
        try:
            _check(name, value)
        except ValueError as error:
            raise ConfigurationError(f"{place}: {name}: {error}") from None


def _check(name: str, value: object) -> None:
    if name in BOUNDS:
        BOUNDS[name].check(value)
    elif name == "limits":
        if not isinstance(value, Limits):
            raise ValueError(f"expected Limits, not {value!r}")
        for limit in LIMITS:
            try:
                BOUNDS[limit].check(getattr(value, limit))
            except ValueError as error:
                raise ValueError(f"{limit}: {error}") from None
    elif name == "compression" and not isinstance(value, bool):
        raise ValueError(f"expected True or False, not {value!r}")
    elif name == "process_budget" and not isinstance(value, Budget):
        raise ValueError(f"expected a Budget, not {value!r}")
