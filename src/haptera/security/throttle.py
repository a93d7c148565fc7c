"""The throttle of failed authentication: guessing becomes slow, and no guesser keeps another one out.

Three things are counted, each for a reason of its own:

- *a user at an address*: after `FREE_FAILURES` failures each one makes the next wait twice as long, from a second to a
  quarter of an hour. This alone makes guessing hopeless, and it locks out the guesser's own address.
- *an address*, with any name: it may fail `ADDRESS_FAILURES` times, and once more in every `ADDRESS_REFILL_S`. So
  a list of names is not tried from one place. It is gentle, because many people may share an address.
- *a user*, wherever from: from `USER_FAILURES` on, guesses come from many places. Then each address has one free
  failure in place of three, and a longer first wait. An address that has not failed is never refused for it: the owner
  of the name comes in with the right password however many guess, and no one locks an administrator out from elsewhere.

Names are counted whether there are such users or not, so a refusal tells nothing about them. Success forgives the user
at that address and nothing else: a guesser with an account of its own gains nothing by using it in between.

Attempts that begin before the first has failed are all judged: a program whose connections come back at one instant
must not be refused. The ones that fail make the wait of their user no longer than one failure does, so that a
wrong password in many processes is mended soon. The address pays for each of them.

Memory has a bound, and an entry with a long wait does not leave for one with a short wait (`RankedTable`): to push out
its own wait a guesser would have to wait for as long at thousands of other addresses.
"""

from __future__ import annotations

import ipaddress
import math
from typing import Final, NamedTuple, TypeVar

from haptera.security.ranked_table import RankedTable

K = TypeVar("K")

#: Failures of a user at an address without a wait: mistakes in typing.
FREE_FAILURES: Final = 3
#: Seconds of the first wait, and of the longest.
FIRST_WAIT_S: Final = 1.0
LONGEST_WAIT_S: Final = 900.0
#: Seconds behind its wait after which a user at an address is forgotten: no one waits that long between two guesses.
FORGOTTEN_AFTER_S: Final = 3600.0

#: Failures of an address, of all names together, and the seconds in which one more may happen.
ADDRESS_FAILURES: Final = 30
ADDRESS_REFILL_S: Final = 5.0
#: The most failures beyond these that an address has to pay for, those of one instant: five minutes.
ADDRESS_DEBT_MAX: Final = 60

#: Failures of a user, from all addresses together, from which on it is guessed from many places, and the seconds in
#: which one is forgotten: one address has to wait too long to come to so many.
USER_FAILURES: Final = 50
USER_REFILL_S: Final = 30.0
#: Free failures and the first wait at an address that guesses with many others.
FREE_FAILURES_OF_MANY: Final = 1
FIRST_WAIT_OF_MANY_S: Final = 30.0

#: Attempts under way of a user at an address, and of an address: as many as connections of one program, and of one
#: machine, come back at once.
UNDER_WAY_MAX: Final = 64
ADDRESS_UNDER_WAY_MAX: Final = 1024
#: The wait beyond these, in milliseconds.
UNDER_WAY_WAIT_MS: Final = 1000

#: Entries of each table: some megabytes with the longest names.
PAIRS_MAX: Final = 16_384
ADDRESSES_MAX: Final = 16_384
USERS_MAX: Final = 4_096

#: The ranks of a user at an address are its failures, up to the longest wait.
_PAIR_RANKS: Final = FREE_FAILURES + 12
#: The bits of an address of IPv6 that one customer of a network provider has at least.
_IPV6_PREFIX: Final = 64


class _Failures(NamedTuple):
    number: int
    until: float


class _Spent(NamedTuple):
    """Failures of a bucket at a time; one is given back in each period since."""

    failures: float
    at: float

    def now(self, now: float, refill_s: float) -> float:
        return max(0.0, self.failures - max(0.0, now - self.at) / refill_s)


class LoginThrottle:
    """The failures of each user at each address. Each attempt that is not refused has to end, once.

    ``name`` is the user that is tried, ``address`` the text of an IP address, or any other text for one place. ``now``
    is in seconds, of a clock that is never set.
    """

    __slots__ = ("_addresses", "_addresses_under_way", "_pairs", "_under_way", "_users")

    def __init__(self) -> None:
        self._pairs: RankedTable[tuple[str, str], _Failures] = RankedTable(PAIRS_MAX, _PAIR_RANKS)
        self._addresses: RankedTable[str, _Spent] = RankedTable(ADDRESSES_MAX, ADDRESS_FAILURES + 2)
        self._users: RankedTable[str, _Spent] = RankedTable(USERS_MAX, USER_FAILURES + 2)
        # Bounded by the connections, each of which makes one attempt at a time.
        self._under_way: dict[tuple[str, str], int] = {}
        self._addresses_under_way: dict[str, int] = {}

    def refuses(self, name: str, address: str, now: float) -> int | None:
        """Begin an attempt, unless it is refused: then return the milliseconds after which one may be made."""
        network = network_of(address)
        pair = (name, network)
        wait_s = max(self._wait_of_pair(pair, now), self._wait_of_address(network, now))
        if wait_s > 0:
            return math.ceil(wait_s * 1000)
        if not self._has_room(pair, now):
            return UNDER_WAY_WAIT_MS
        self._under_way[pair] = self._under_way.get(pair, 0) + 1
        self._addresses_under_way[network] = self._addresses_under_way.get(network, 0) + 1
        return None

    def malformed(self, address: str, now: float) -> None:
        """Count an attempt that has failed before `refuses` was asked: it is a failure of its address alone."""
        _spend(self._addresses, network_of(address), ADDRESS_FAILURES, ADDRESS_DEBT_MAX, ADDRESS_REFILL_S, now)

    def ended(self, name: str, address: str, ok: bool, now: float) -> None:
        """End an attempt that has begun: it came in, or it has failed."""
        network = network_of(address)
        pair = (name, network)
        _count_down(self._under_way, pair)
        _count_down(self._addresses_under_way, network)
        if ok:
            self._pairs.remove(pair)
            return
        self._fail_pair(pair, now)
        _spend(self._addresses, network, ADDRESS_FAILURES, ADDRESS_DEBT_MAX, ADDRESS_REFILL_S, now)

    @property
    def size(self) -> int:
        """How many entries there are, attempts under way aside."""
        return len(self._pairs) + len(self._addresses) + len(self._users)

    def _wait_of_pair(self, pair: tuple[str, str], now: float) -> float:
        failures = self._pairs.get(pair, now)
        return 0.0 if failures is None else failures.until - now

    def _wait_of_address(self, network: str, now: float) -> float:
        spent = self._addresses.get(network, now)
        if spent is None:
            return 0.0
        return (spent.now(now, ADDRESS_REFILL_S) - ADDRESS_FAILURES + 1) * ADDRESS_REFILL_S

    def _has_room(self, pair: tuple[str, str], now: float) -> bool:
        """Whether one more attempt may be under way: beside none, where the next failure brings a wait."""
        failures = self._pairs.get(pair, now)
        free = UNDER_WAY_MAX if failures is None else max(1, self._free(pair[0], now) - failures.number)
        under_way = self._under_way.get(pair, 0)
        return under_way < free and self._addresses_under_way.get(pair[1], 0) < ADDRESS_UNDER_WAY_MAX

    def _fail_pair(self, pair: tuple[str, str], now: float) -> None:
        failures = self._pairs.get(pair, now)
        if failures is not None and failures.until > now:
            return  # it had begun before the wait
        number = 1 if failures is None else failures.number + 1
        beyond = number - self._free(pair[0], now)
        first_s = FIRST_WAIT_OF_MANY_S if self._guessed_by_many(pair[0], now) else FIRST_WAIT_S
        wait_s = min(LONGEST_WAIT_S, first_s * 2.0 ** min(beyond - 1, _PAIR_RANKS)) if beyond > 0 else 0.0
        until = now + wait_s
        self._pairs.put(pair, _Failures(number, until), number - 1, until + FORGOTTEN_AFTER_S, now)
        _spend(self._users, pair[0], USER_FAILURES, USER_FAILURES, USER_REFILL_S, now)

    def _free(self, name: str, now: float) -> int:
        return FREE_FAILURES_OF_MANY if self._guessed_by_many(name, now) else FREE_FAILURES

    def _guessed_by_many(self, name: str, now: float) -> bool:
        spent = self._users.get(name, now)
        return spent is not None and spent.now(now, USER_REFILL_S) > USER_FAILURES - 1


def network_of(address: str) -> str:
    """Return the part of an address that stands for one place: of IPv6 the first 64 bits, and all of any other."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.IPv6Network((ip, _IPV6_PREFIX), strict=False))


def _spend(
    table: RankedTable[str, _Spent], key: str, failures: int, debt_max: int, refill_s: float, now: float
) -> None:
    """Add a failure to a bucket, in a table in which the ones that are nearly full stay longest."""
    spent = table.get(key, now)
    count = min((0.0 if spent is None else spent.now(now, refill_s)) + 1, float(failures + debt_max))
    table.put(key, _Spent(count, now), math.ceil(count), now + count * refill_s, now)


def _count_down(counts: dict[K, int], key: K) -> None:
    left = counts.get(key, 0) - 1
    if left > 0:
        counts[key] = left
    else:
        counts.pop(key, None)
