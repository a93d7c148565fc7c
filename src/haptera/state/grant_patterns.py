"""The patterns of grants, sorted out: single keys, prefixes, and globs.

Of the prefixes none begins with another, so the greatest that does not stand behind the key is the only one that it can
begin with: one binary search finds it. A glob is compared in steps that grow with the key's length, and never goes back
(`haptera.state.glob`).

Of a glob the literal text before the first special character is its prefix, and the *rest* is compiled when a key with
this prefix is looked at for the first time. So a key meets the globs whose prefix it has and no other, and the state
bounds the bytes of their rests (`rests_size`): with them the time of a look and that of the compilation.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from haptera.access_rules import EVERY_KEY
from haptera.state import limits
from haptera.state.glob import compile_glob, split_prefix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from haptera.state.glob import Glob
    from haptera.state.sliced_work import Steps

#: A character that a pattern which is one key does not have.
_SPECIAL: Final = re.compile(r"[*?\[\\]")


class SortedPattern(NamedTuple):
    """A pattern as `split_prefix` has it, with the bytes of the rest, which are none of one key and of a prefix."""

    one_key: bool
    prefix: str
    rest: str
    rest_size: int


def is_one_key(pattern: str) -> bool:
    """Whether a pattern matches one key alone, which is the pattern itself."""
    return _SPECIAL.search(pattern) is None


# As many as a store may have, and the ones that are asked for in vain: each costs microseconds for every character,
# and each user whose permits are compiled has the same ones.
@lru_cache(maxsize=2 * limits.GRANTS_MAX)
def sorted_out(pattern: str) -> SortedPattern:
    """Sort out a pattern."""
    if is_one_key(pattern):
        return SortedPattern(True, pattern, "", 0)
    prefix, rest = split_prefix(pattern)
    is_prefix = bool(rest) and not rest.strip("*")
    return SortedPattern(False, prefix, rest, 0 if is_prefix else len(rest.encode()))


def is_short(pattern: str) -> bool:
    """Whether a pattern is one key or a prefix, so that no key is compared with a rest."""
    one_key, _, rest, rest_size = sorted_out(pattern)
    return one_key or (rest_size == 0 and bool(rest))


class Patterns:
    """The patterns on which one permission is granted. ``check`` says of a key whether one of them matches it."""

    __slots__ = ("check", "cost", "every", "given", "globs", "keys", "prefixes")

    def __init__(self, given: frozenset[str], keys: Iterable[str], prefixes: list[str], globs: _Globs) -> None:
        self.given: frozenset[str] = given
        self.every: bool = EVERY_KEY in given
        self.keys: frozenset[str] = frozenset(keys)
        self.prefixes: list[str] = prefixes
        self.globs: _Globs = globs
        #: The cost of the globs that may be compared with a key.
        self.cost: int = globs.cost
        self.check: Callable[[str], bool] = _check_of(self)

    def allow(self, key: str) -> bool:
        """Whether one of them matches a key."""
        if key in self.keys or begins(key, self.prefixes):
            return True
        return bool(self.globs.cost) and self.globs.match(key)

    def allow_steps(self, key: str) -> Steps[bool]:
        """As `allow`, with a slice for each glob."""
        if key in self.keys or begins(key, self.prefixes):
            return True
        return (yield from self.globs.match_steps(key))


def patterns_steps(given: frozenset[str]) -> Steps[Patterns]:
    """Sort out patterns, in slices."""
    if EVERY_KEY in given:  # the others are not looked at
        return Patterns(given, (), [""], _Globs({}, 0))
    keys: list[str] = []
    prefixes: list[str] = []
    rests: dict[str, dict[str, int]] = {}
    for number, pattern in enumerate(given, 1):
        one_key, prefix, rest, rest_size = sorted_out(pattern)
        if one_key:
            keys.append(pattern)
        elif rest_size or not rest:
            rests.setdefault(prefix, {})[rest] = rest_size
        else:
            prefixes.append(prefix)
        if number % _SORTED_TOGETHER == 0:
            yield _SORTED_TOGETHER * _SORT_WORK
    shortest = _shortest(prefixes)
    yield len(prefixes) * _SORT_WORK
    widest = _widest(rests)
    yield len(rests) * _SORT_WORK
    return Patterns(given, keys, shortest, _Globs(rests, widest))


class _Globs:
    """Globs that are no prefixes, by their own prefixes."""

    __slots__ = ("_compiled", "_lengths", "_rests", "cost")

    def __init__(self, rests: Mapping[str, Mapping[str, int]], widest: int) -> None:
        self._rests = rests
        self._lengths = sorted({len(prefix) for prefix in rests})
        self._compiled: dict[str, list[Glob]] = {}
        #: At least 1 where there are globs: one without a special character has no rest.
        self.cost: int = widest or int(bool(rests))

    def match(self, key: str) -> bool:
        """Whether one of them matches a key."""
        for length in self._lengths:
            prefix = key[:length]
            if prefix in self._rests:
                rest = key[length:]
                if any(glob.matches(rest) for glob in self._compiled.get(prefix) or self._compile(prefix)):
                    return True
        return False

    def match_steps(self, key: str) -> Steps[bool]:
        """As `match`, with a slice for each glob, and one for the compilation of those of a prefix."""
        for length in self._lengths:
            prefix = key[:length]
            if prefix in self._rests:
                rest = key[length:]
                if prefix not in self._compiled:
                    yield sum(self._rests[prefix].values()) * _COMPILE_WORK
                for glob in self._compiled.get(prefix) or self._compile(prefix):
                    if glob.matches(rest):
                        return True
                    yield look_work(glob.cost, len(rest))
        return False

    def _compile(self, prefix: str) -> list[Glob]:
        compiled = self._compiled[prefix] = [compile_glob(rest) for rest in sorted(self._rests[prefix])]
        return compiled


#: Patterns that are sorted out in one slice, of which each that is new costs microseconds; and the units of work of one
#: that is known.
_SORTED_TOGETHER: Final = 256
_SORT_WORK: Final = 6
#: Units of work of compiling a byte of a rest.
_COMPILE_WORK: Final = 8
#: Places of a key at which one byte of a pattern is compared in one unit of work, in the worst case. A byte costs one
#: more, wherever it is compared: the step from pattern to pattern.
_PLACES_PER_UNIT: Final = 200


def look_work(cost: int, size: int) -> int:
    """Units of work of comparing a text of so many characters with patterns of this cost."""
    return 1 + cost * (size + _PLACES_PER_UNIT) // _PLACES_PER_UNIT


def rests_size(patterns: Iterable[str]) -> int:
    """The most bytes of rests that one key may meet where these patterns are granted, each pair of the two once."""
    rests: dict[str, dict[str, int]] = {}
    for pattern in patterns:
        _, prefix, rest, rest_size = sorted_out(pattern)
        if rest_size:
            rests.setdefault(prefix, {})[rest] = rest_size
    return _widest(rests)


def _widest(rests: Mapping[str, Mapping[str, int]]) -> int:
    """The most bytes of the rests of prefixes that one key may have: each begins with the one before it."""
    most = 0
    chain: list[tuple[str, int]] = []
    for prefix in sorted(rests):
        while chain and not prefix.startswith(chain[-1][0]):
            chain.pop()
        size = sum(rests[prefix].values()) + (chain[-1][1] if chain else 0)
        chain.append((prefix, size))
        most = max(most, size)
    return most


def _check_of(patterns: Patterns) -> Callable[[str], bool]:
    """Return the shortest function for these patterns: most users have one prefix, or everything."""
    if patterns.every:
        return lambda key: True
    if patterns.keys or patterns.globs.cost or len(patterns.prefixes) > 1:
        return patterns.allow
    if patterns.prefixes:
        (prefix,) = patterns.prefixes
        return lambda key: key.startswith(prefix)
    return lambda key: False


def _shortest(prefixes: Iterable[str]) -> list[str]:
    """Return prefixes in their order, without each that begins with another."""
    shortest: list[str] = []
    for prefix in sorted(prefixes):
        if not shortest or not prefix.startswith(shortest[-1]):
            shortest.append(prefix)
    return shortest


def begins(text: str, prefixes: list[str]) -> bool:
    """Whether a text begins with one of some prefixes, of which none begins with another."""
    at = bisect_right(prefixes, text)
    return at > 0 and text.startswith(prefixes[at - 1])
