"""The grants of a user, compiled: whether it may do something to a key, in a fraction of a microsecond.

For each permission the patterns are sorted out once (`haptera.state.grant_patterns`), when a key is first looked at for
it. The 4,096 longest patterns of a store take some milliseconds for each permission: `compile_steps` does that in
slices, before a request that would have to wait for it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple

from haptera.access_rules import KEY_PERMISSIONS, NODE_PERMISSIONS
from haptera.state import limits
from haptera.state.glob import literal_prefix
from haptera.state.grant_patterns import begins, look_work, patterns_steps
from haptera.state.sliced_work import finish

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from haptera.access_rules import KeyPermission, NodePermission, Permission
    from haptera.state.grant_patterns import Patterns
    from haptera.state.sliced_work import Steps

_NODE_PERMISSIONS: Final = frozenset(NODE_PERMISSIONS)
#: Patterns that are sorted out at once, for all permissions together in half a millisecond.
_FEW_PATTERNS: Final = 128
#: The permissions that an operation may need on one key.
_LOOKS_MAX: Final = 3


class Sieve(NamedTuple):
    """The keys that may be seen. ``cost`` is that of the globs which ``passes`` may compare with a key."""

    passes: Callable[[str], bool]
    cost: int


class Permits:
    """The things that the holder of some grants may do. Another is made when the grants change.

    Each permission on keys is an attribute: a function that says of a key whether the holder may do this to it.
    """

    __slots__ = ("_cost", "_given", "_node", "_patterns", "delete", "lease", "read", "scan", "watch", "write")

    delete: Callable[[str], bool]
    lease: Callable[[str], bool]
    read: Callable[[str], bool]
    scan: Callable[[str], bool]
    watch: Callable[[str], bool]
    write: Callable[[str], bool]

    def __init__(self, grants: Iterable[tuple[str, Sequence[Permission]]]) -> None:
        """Args: grants: patterns, each with the permissions that are granted on it."""
        given: dict[tuple[Permission, ...], list[str]] = {}
        for pattern, permissions in grants:
            given.setdefault(tuple(permissions), []).append(pattern)
        self._given = given
        self._node = frozenset(each for permissions in given for each in permissions if each in _NODE_PERMISSIONS)
        self._patterns: dict[KeyPermission, Patterns] = {}
        self._cost: int | None = None
        for permission in KEY_PERMISSIONS:
            setattr(self, permission, self._first_check(permission))
        if sum(map(len, given.values())) <= _FEW_PATTERNS:
            self.compile()

    def _first_check(self, permission: KeyPermission) -> Callable[[str], bool]:
        """Return the function of a permission that was never asked for."""
        return lambda key: self._of(permission).check(key)

    def _of(self, permission: KeyPermission) -> Patterns:
        found = self._patterns.get(permission)
        return finish(self._sort_steps(permission)) if found is None else found

    def _sort_steps(self, permission: KeyPermission) -> Steps[Patterns]:
        """Sort out the patterns of a permission, or take those of another one that has the same."""
        given = frozenset(chain.from_iterable(self._given[each] for each in self._given if permission in each))
        found = next((patterns for patterns in self._patterns.values() if patterns.given == given), None)
        if found is None:
            found = yield from patterns_steps(given)
        self._patterns[permission] = found
        setattr(self, permission, found.check)
        return found

    @property
    def compiled(self) -> bool:
        """Whether all patterns are sorted out."""
        return self._cost is not None

    def compile(self) -> None:
        """Sort out all patterns now."""
        self._cost = max(self._of(permission).cost for permission in KEY_PERMISSIONS)

    def compile_steps(self) -> Steps[None]:
        """As `compile`, in slices."""
        if self._cost is not None:
            return
        for permission in KEY_PERMISSIONS:
            if permission not in self._patterns:
                yield from self._sort_steps(permission)
        self.compile()

    @property
    def burdens(self) -> bool:
        """Whether the look at a key may take long: `work` says how long."""
        return self._cost != 0

    def work(self, size: int) -> int:
        """Units of work of judging a request with so many bytes, of which any part may be keys."""
        if self._cost is None:
            return limits.SLICE_WORK_MAX
        return look_work(self._cost * _LOOKS_MAX, size)

    def has(self, permission: NodePermission) -> bool:
        """Whether it may do what is of the node as a whole."""
        return permission in self._node

    def check_of(self, permission: KeyPermission) -> Callable[[str], bool]:
        """The function that says of a key whether it may do this to it."""
        return self._of(permission).check

    def may(self, permission: KeyPermission, key: str) -> bool:
        """Whether it may do this to a key."""
        return self._of(permission).check(key)

    def may_steps(self, permission: KeyPermission, key: str) -> Steps[bool]:
        """As `may`, in slices."""
        return (yield from self._of(permission).allow_steps(key))

    def covers(self, permission: KeyPermission, prefix: str) -> bool:
        """Whether it may do this to each key that begins with ``prefix``, be it there or not.

        Globs that are no prefixes are not counted, although several together may match all of these keys.
        """
        return begins(prefix, self._of(permission).prefixes)

    def holds(self, permission: Permission, pattern: str) -> bool:
        """Whether it may do this to each key that a pattern matches, by a grant of this very pattern or of a prefix.

        Other globs that match all of these keys are not counted.
        """
        if permission in _NODE_PERMISSIONS:
            return permission in self._node
        patterns = self._of(permission)  # type: ignore[arg-type]  # it is none of the node
        return patterns.every or pattern in patterns.given or begins(literal_prefix(pattern), patterns.prefixes)

    def anywhere(self, permission: KeyPermission) -> bool:
        """Whether there may be a key to which it may do this."""
        return any(permission in permissions for permissions in self._given)

    def cost(self, permission: KeyPermission) -> int:
        """The cost of the globs that may be compared with a key, as that of a `Glob`."""
        return self._of(permission).cost

    def sieve(self, permissions: Sequence[KeyPermission], prefix: str) -> Sieve | None:
        """The keys with a prefix on which all of some permissions are granted; None where these are all of them."""
        asked = [each for each in permissions if not self.covers(each, prefix)]
        if not asked:
            return None
        checks = [self.check_of(each) for each in asked]
        passes = checks[0] if len(checks) == 1 else lambda key: all(check(key) for check in checks)
        return Sieve(passes, sum(self.cost(each) for each in asked))
