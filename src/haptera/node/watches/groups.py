"""Which watches an event is for. Watches of the same keys are one group, for which each event is encoded once."""

from __future__ import annotations

from bisect import insort
from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from haptera.node.watches.follower import Follower
    from haptera.state import Event, operations


class Group:
    """The watches of one key, or of one prefix, with the same fields. ``members`` are the ones in step, those of each
    reader together: all events that were delivered are sent to them.

    ``matched`` are the events of the piece that is being delivered. ``open`` is the revision that the members were told
    goes on, or 0.
    """

    __slots__ = ("key", "matched", "members", "open", "prefix", "size", "with_previous")

    def __init__(self, key: str | None, prefix: str, with_previous: bool) -> None:
        self.key: Final = key
        self.prefix: Final = prefix
        self.with_previous: Final = with_previous
        self.members: dict[object, dict[Follower, None]] = {}  # in the order in which they came
        self.matched: list[Event] = []
        self.open: int = 0
        #: The watches that belong to it, in step or not.
        self.size: int = 0

    def admit(self, watch: Follower) -> None:
        """A watch has come into step."""
        watch.in_step = True
        self.members.setdefault(watch.owner, {})[watch] = None

    def release(self, watch: Follower) -> None:
        """A watch that is in step falls behind, or has ended."""
        watch.in_step = False
        members = self.members[watch.owner]
        del members[watch]
        if not members:
            del self.members[watch.owner]

    def in_step(self) -> Iterator[Follower]:
        """All members."""
        for watches in self.members.values():
            yield from watches

    def takes(self, key: str) -> bool:
        """Whether an event of this key is for its watches."""
        return key == self.key if self.key is not None else key.startswith(self.prefix)


class Groups:
    """All groups, found by the key of an event: a look-up, and one for each length that a watched prefix has."""

    def __init__(self) -> None:
        self._of_keys: dict[str, list[Group]] = {}
        self._of_prefixes: dict[str, list[Group]] = {}
        self._lengths: list[int] = []  # of the prefixes, in order
        self._counts: Counter[int] = Counter()
        #: The watches of all groups.
        self.watches: int = 0
        #: The groups whose members were told that a revision goes on.
        self.open: dict[Group, None] = {}

    def __iter__(self) -> Iterator[Group]:
        for groups in (*self._of_keys.values(), *self._of_prefixes.values()):
            yield from groups

    def join(self, op: operations.OpenWatch) -> Group:
        """The group of a watch, which counts in it until `leave`."""
        prefix = op.prefix or ""
        groups = self._groups(op.key, prefix)
        for group in groups:
            if group.with_previous == op.with_previous:
                break
        else:
            group = Group(op.key, prefix, op.with_previous)
            groups.append(group)
        group.size += 1
        self.watches += 1
        return group

    def leave(self, group: Group) -> None:
        """One watch less."""
        group.size -= 1
        self.watches -= 1
        if group.size:
            return
        self.open.pop(group, None)
        groups = self._groups(group.key, group.prefix)
        groups.remove(group)
        if groups:
            return
        if group.key is not None:
            del self._of_keys[group.key]
            return
        del self._of_prefixes[group.prefix]
        length = len(group.prefix)
        self._counts[length] -= 1
        if not self._counts[length]:
            self._lengths.remove(length)

    def note_open(self, group: Group, revision: int) -> None:
        """The members of a group were told that this revision goes on; 0 for none."""
        group.open = revision
        if revision:
            self.open[group] = None
        else:
            self.open.pop(group, None)

    def matching(self, key: str) -> Iterator[Group]:
        """The groups that an event of this key is for."""
        if key in self._of_keys:
            yield from self._of_keys[key]
        prefixes = self._of_prefixes
        for length in self._lengths:
            if length > len(key):
                break
            prefix = key[:length]
            if prefix in prefixes:
                yield from prefixes[prefix]

    def _groups(self, key: str | None, prefix: str) -> list[Group]:
        if key is not None:
            return self._of_keys.setdefault(key, [])
        if prefix not in self._of_prefixes:
            length = len(prefix)
            if not self._counts[length]:
                insort(self._lengths, length)
            self._counts[length] += 1
        return self._of_prefixes.setdefault(prefix, [])
