"""Numbers on the command line."""

from __future__ import annotations

import math
from typing import Any

import click

from haptera.key_rules import LEASE_TTL_MAX_MS, LEASE_TTL_MIN_MS, TTL_MAX_MS


class Number(click.FloatRange):
    """A number in a range. Neither infinity nor NaN is one, which every comparison with a bound would let pass."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


#: Seconds that a key has to live.
TTL = Number(0.001, TTL_MAX_MS / 1000)

#: Seconds that a lease goes on without a renewal.
LEASE_TTL = Number(LEASE_TTL_MIN_MS / 1000, LEASE_TTL_MAX_MS / 1000)
