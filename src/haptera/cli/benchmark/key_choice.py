"""Which keys a run touches, and how often each."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from random import Random

Distribution = Literal["uniform", "zipf"]

#: Digits of the number that ends a key: all keys of a run are of one length.
KEY_DIGITS: Final = 12


class Zipf:
    """Ranks from 1 to ``count``, rank k with a probability in proportion to k ** -theta, exactly.

    By rejection-inversion (W. Hörmann, G. Derflinger: Rejection-inversion to generate variates from monotone discrete
    distributions, 1996): it needs no table, and it is right for every ``theta`` above 0, where the usual approximation
    (Gray et al., 1994) works below 1 alone. Fewer than one draw in ten is rejected.
    """

    def __init__(self, count: int, theta: float) -> None:
        if count < 1 or not 0 < theta < math.inf:
            raise ValueError(f"a Zipf distribution needs a rank and a theta above 0, not {count} and {theta}")
        self._count = count
        self._theta = theta
        self._low = self._integral(1.5) - 1.0
        self._high = self._integral(count + 0.5)
        self._surely = 2.0 - self._inverse(self._integral(2.5) - self._density(2.0))

    def rank(self, random: Callable[[], float]) -> int:
        """Draw a rank; ``random`` gives numbers in [0, 1)."""
        while True:
            u = self._high + random() * (self._low - self._high)
            x = self._inverse(u)
            rank = min(max(int(x + 0.5), 1), self._count)
            if rank - x <= self._surely or u >= self._integral(rank + 0.5) - self._density(rank):
                return rank

    def _density(self, x: float) -> float:
        return math.exp(-self._theta * math.log(x))

    def _integral(self, x: float) -> float:
        """The integral of the density, (x**(1-theta) - 1) / (1-theta), which for theta 1 is log(x)."""
        log = math.log(x)
        part = (1.0 - self._theta) * log
        return log * (math.expm1(part) / part if abs(part) > 1e-8 else 1.0 + part / 2)

    def _inverse(self, x: float) -> float:
        part = max(x * (1.0 - self._theta), -1.0)
        return math.exp(x * (math.log1p(part) / part if abs(part) > 1e-8 else 1.0 - part / 2))


class Keys:
    """The keys of a run: ``prefix`` and a number from 0 to ``count`` - 1, drawn by a distribution.

    With ``zipf`` the ranks are scattered over the key space, so that the popular keys are not neighbours: they are
    popular, not a range.
    """

    def __init__(self, prefix: str, count: int, distribution: Distribution, theta: float) -> None:
        self.prefix = prefix
        self.count = count
        self._zipf = Zipf(count, theta) if distribution == "zipf" else None
        self._step = _coprime(count)

    def key(self, number: int) -> str:
        return f"{self.prefix}{number:0{KEY_DIGITS}d}"

    def draw(self, random: Random) -> str:
        """A key, each as often as the distribution says."""
        return self.key(self.number(random))

    def number(self, random: Random) -> int:
        if self._zipf is None:
            return int(random.random() * self.count)
        return self._zipf.rank(random.random) * self._step % self.count


def _coprime(count: int) -> int:
    """A step that visits every number below ``count`` once before it repeats, far from its neighbours."""
    step = max(1, round(count * 0.6180339887498949))
    while math.gcd(step, count) != 1:
        step += 1
    return step
