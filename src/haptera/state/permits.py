"""The grants of a user, compiled: whether it may do something to a key, in a fraction of a microsecond.

For each permission the patterns are sorted out once: every key, single keys, prefixes, and globs. Of the prefixes none
begins with another, so the greatest that does not stand behind the key is the only one that it can begin with: one
binary search finds it. A glob is compared in steps that grow with the key's length, and never goes back
(`haptera.state.glob`).

Of a glob the literal text before the first special character is its prefix, and the *rest* is compiled when a key with
this prefix is looked at for the first time. So a key meets the globs whose prefix it has and no other, and the state
bounds the bytes of their rests (`rests_size`): with them the time of a look and that of the compilation.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from haptera.access_rules import EVERY_KEY, KEY_PERMISSIONS, NODE_PERMISSIONS
from haptera.state.glob import compile_glob, literal_prefix, split_prefix

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from haptera.access_rules import KeyPermission, NodePermission, Permission
    from haptera.state.glob import Glob

#: Characters that a pattern which is one key does not have.
_SPECIAL: Final = frozenset("*?[\\")


def is_one_key(pattern: str) -> bool:
    """Whether a pattern matches one key alone, which is the pattern itself."""
    return _SPECIAL.isdisjoint(pattern)


class _Patterns:
    """The patterns on which one permission is granted."""

    __slots__ = ("cost", "every", "given", "globs", "keys", "prefixes")

    def __init__(self, given: frozenset[str], split_patterns: Mapping[str, tuple[str, str]]) -> None:
        """Args: split_patterns: each that is not one key, as `split_prefix` has it."""
        self.given = given
        self.every = EVERY_KEY in given
        self.keys = given - split_patterns.keys()
        split = [split_patterns[pattern] for pattern in given - self.keys]
        self.prefixes = _shortest(prefix for prefix, rest in split if is_run(rest))
        self.globs = _Globs(split)
        #: The cost of the globs that may be compared with a key.
        self.cost = 0 if self.every else self.globs.cost

    def allow(self, key: str) -> bool:
        """Whether one of them matches a key."""
        if key in self.keys or _begins(key, self.prefixes):
            return True
        return bool(self.globs.cost) and self.globs.match(key)


class _Globs:
    """Globs that are no prefixes, by their own prefixes."""

    __slots__ = ("_compiled", "_lengths", "_rests", "cost")

    def __init__(self, split: Iterable[tuple[str, str]]) -> None:
        rests = self._rests = _by_prefix(split)
        self._lengths = sorted({len(prefix) for prefix in rests})
        self._compiled: dict[str, list[Glob]] = {}
        #: At least 1 where there are globs: one without a special character has no rest.
        self.cost = _widest(rests) or int(bool(rests))

    def match(self, key: str) -> bool:
        """Whether one of them matches a key."""
        for length in self._lengths:
            prefix = key[:length]
            if prefix in self._rests:
                rest = key[length:]
                if any(glob.matches(rest) for glob in self._compiled.get(prefix) or self._compile(prefix)):
                    return True
        return False

    def _compile(self, prefix: str) -> list[Glob]:
        compiled = self._compiled[prefix] = [compile_glob(rest) for rest in sorted(self._rests[prefix])]
        return compiled


class Sieve(NamedTuple):
    """The keys that may be seen. ``cost`` is that of the globs which ``passes`` may compare with a key."""

    passes: Callable[[str], bool]
    cost: int


class Permits:
    """The things that the holder of some grants may do. Another is made when the grants change.

    Each permission on keys is an attribute: a function that says of a key whether the holder may do this to it.
    """

    __slots__ = ("_node", "_patterns", "delete", "lease", "read", "scan", "watch", "write")

    delete: Callable[[str], bool]
    lease: Callable[[str], bool]
    read: Callable[[str], bool]
    scan: Callable[[str], bool]
    watch: Callable[[str], bool]
    write: Callable[[str], bool]

    def __init__(self, grants: Iterable[tuple[str, Sequence[Permission]]]) -> None:
        """Args: grants: patterns, each with the permissions that are granted on it."""
        granted = list(grants)
        self._node = frozenset(each for _, permissions in granted for each in permissions if each in _NODE_PERMISSIONS)
        split = {pattern: split_prefix(pattern) for pattern, _ in granted if not is_one_key(pattern)}
        given = {
            each: frozenset(pattern for pattern, permissions in granted if each in permissions)
            for each in KEY_PERMISSIONS
        }
        sorted_out = {patterns: _Patterns(patterns, split) for patterns in {*given.values()}}
        self._patterns = {each: sorted_out[patterns] for each, patterns in given.items()}
        for each, patterns in self._patterns.items():
            setattr(self, each, _check_of(patterns))

    def has(self, permission: NodePermission) -> bool:
        """Whether it may do what is of the node as a whole."""
        return permission in self._node

    def check_of(self, permission: KeyPermission) -> Callable[[str], bool]:
        """The function that says of a key whether it may do this to it."""
        check: Callable[[str], bool] = getattr(self, permission)
        return check

    def may(self, permission: KeyPermission, key: str) -> bool:
        """Whether it may do this to a key."""
        return self.check_of(permission)(key)

    def covers(self, permission: KeyPermission, prefix: str) -> bool:
        """Whether it may do this to each key that begins with ``prefix``, be it there or not.

        Globs that are no prefixes are not counted, although several together may match all of these keys.
        """
        patterns = self._patterns[permission]
        return patterns.every or _begins(prefix, patterns.prefixes)

    def holds(self, permission: Permission, pattern: str) -> bool:
        """Whether it may do this to each key that a pattern matches, by a grant of this very pattern or of a prefix.

        Other globs that match all of these keys are not counted.
        """
        patterns = self._patterns.get(permission)  # type: ignore[arg-type]  # one of the node has none
        if patterns is None:
            return self.has(permission)  # type: ignore[arg-type]
        return patterns.every or pattern in patterns.given or _begins(literal_prefix(pattern), patterns.prefixes)

    def anywhere(self, permission: KeyPermission) -> bool:
        """Whether there may be a key to which it may do this."""
        patterns = self._patterns[permission]
        return patterns.every or bool(patterns.keys or patterns.prefixes or patterns.globs.cost)

    def cost(self, permission: KeyPermission) -> int:
        """The cost of the globs that may be compared with a key, as that of a `Glob`."""
        return self._patterns[permission].cost

    def sieve(self, permissions: Sequence[KeyPermission], prefix: str) -> Sieve | None:
        """The keys with a prefix on which all of some permissions are granted; None where these are all of them."""
        asked = [each for each in permissions if not self.covers(each, prefix)]
        if not asked:
            return None
        checks = [self.check_of(each) for each in asked]
        passes = checks[0] if len(checks) == 1 else lambda key: all(check(key) for check in checks)
        return Sieve(passes, sum(self._patterns[each].cost for each in asked))


_NODE_PERMISSIONS: Final = frozenset(NODE_PERMISSIONS)


def _check_of(patterns: _Patterns) -> Callable[[str], bool]:
    """Return the shortest function for these patterns: most users have one prefix, or everything."""
    if patterns.every:
        return lambda key: True
    if patterns.keys or patterns.globs.cost or len(patterns.prefixes) > 1:
        return patterns.allow
    if patterns.prefixes:
        (prefix,) = patterns.prefixes
        return lambda key: key.startswith(prefix)
    return lambda key: False


def is_run(rest: str) -> bool:
    """Whether the rest of a glob is any text, so that the glob is a prefix."""
    return bool(rest) and not rest.strip("*")


def rests_size(patterns: Iterable[str]) -> int:
    """The most bytes of rests that one key may meet where these patterns are granted, each pair of the two once."""
    return _widest(_by_prefix(split_prefix(pattern) for pattern in patterns if not is_one_key(pattern)))


def _by_prefix(split: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    """Return the rests of globs that are no prefixes, by their prefixes."""
    rests: dict[str, set[str]] = {}
    for prefix, rest in split:
        if not is_run(rest):
            rests.setdefault(prefix, set()).add(rest)
    return rests


def _widest(rests: Mapping[str, set[str]]) -> int:
    """The most bytes of the rests of prefixes that one key may have: each begins with the one before it."""
    most = 0
    chain: list[tuple[str, int]] = []
    for prefix in sorted(rests):
        while chain and not prefix.startswith(chain[-1][0]):
            chain.pop()
        size = sum(len(rest.encode()) for rest in rests[prefix]) + (chain[-1][1] if chain else 0)
        chain.append((prefix, size))
        most = max(most, size)
    return most


def _shortest(prefixes: Iterable[str]) -> list[str]:
    """Return prefixes in their order, without each that begins with another."""
    shortest: list[str] = []
    for prefix in sorted(prefixes):
        if not shortest or not prefix.startswith(shortest[-1]):
            shortest.append(prefix)
    return shortest


def _begins(text: str, prefixes: list[str]) -> bool:
    """Whether a text begins with one of some prefixes, of which none begins with another."""
    at = bisect_right(prefixes, text)
    return at > 0 and text.startswith(prefixes[at - 1])
