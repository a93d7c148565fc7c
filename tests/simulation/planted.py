"""Faults that are planted into the product, to show that the runs of the simulation find them.

Each is a small change of one part: of the disk, of the state, of the watches.
"""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

import msgspec

from haptera.client.watches.watched import WatchPosition
from haptera.errors import Code, failure
from haptera.node import backups
from haptera.node.archiver import Archiver
from haptera.node.expiry import Expiry
from haptera.node.lease_deadlines import LeaseDeadlines
from haptera.node.leases import LeaseKeeper
from haptera.node.snapshots import assembly
from haptera.node.watches import delivery, follower, items
from haptera.node.watches.watches import Watches
from haptera.replication import TERM, ClusterOfOne
from haptera.state import conditions, event_history, kv
from haptera.state.event_history import EventHistory
from haptera.state.kv import Kv
from haptera.state.lease_commands import LeaseCommands
from haptera.state.leases import Leases
from haptera.state.requests import Requests
from haptera.state.sliced_work import finish
from haptera.storage import LogEntry, StoredKeyring, archive
from haptera.testing.filesystem import MemoryFile, MemoryFileSystem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from haptera.errors import Failure
    from haptera.node.recovery import DurableState
    from haptera.state import Event, Result, Steps, operations
    from haptera.state.results import StoredEntry
    from haptera.storage import DataDirectory, DataKey, File, MasterKey


# -- the disk


def forgets(*_: Any) -> None:
    """Remember no request."""


def unsynced(*_: Any) -> None:
    """Sync nothing, and say that it is done."""


def answered_first(
    self: ClusterOfOne, time_ms: int, encode: Callable[[], bytes], size: int, *, frees: bool = False
) -> int:
    """Tell of the entry as committed, and write it when the loop comes to it."""
    self.busy = True
    entry = LogEntry(TERM, self._index + 1, time_ms, encode())
    self._loop.call_later(0.001, self._written, entry, None, 0.0)
    self._loop.call_later(0.002, lambda: self._log.append(entry, frees))
    return entry.index


all_of_the_log: Final = backups.extent_of


def kept_in_memory(self: StoredKeyring, keys: tuple[DataKey, ...], masters: Iterable[MasterKey]) -> None:
    """Use the changed keyring, and write no file."""
    self._keys = keys


def none_used(_: DataDirectory) -> set[bytes]:
    """Find no data key in use."""
    return set()


def without_the_end(storage: DurableState) -> backups.LogExtent:
    """Leave the last segment out of a backup."""
    extent = all_of_the_log(storage)
    return backups.LogExtent(extent.index, extent.segments[:-1])


def half(source: File, target: File, _: object) -> None:
    """Copy the first half of a segment to the archive."""
    target.pwrite(source.pread(source.size() // 2, 0), 0)


def through_what_failed(self: Archiver, error: Exception | None) -> None:
    """Count segments as archived that could not be copied."""
    self.through += error is not None
    worked(self, error)


worked: Final = Archiver._worked


# -- the state


def before_the_last_change(self: Kv, op: operations.Get) -> Result:
    """Read a key as it was before the newest change of the store."""
    for _, event in islice(self.events.newest_first(), 1):
        if event[2] == op.key and event[4] is not None:
            return event[4]  # type: ignore[no-any-return]
    return get(self, op)


def one_is_lost(op: operations.Increment, previous: StoredEntry | None) -> Any:
    """Let every fifth increment overwrite the one before it."""
    number = sum_of(op, previous)
    return number - op.delta if isinstance(number, int) and number % 5 == 0 else number


def not_all(self: Kv, key: str, value: bytes, revision: int, *others: Any) -> None:
    """Make no change at some revisions, and answer as if it were made."""
    if revision % 13:
        put(self, key, value, revision, *others)


def without_the_log(self: Expiry) -> Steps[None]:
    """Remove the keys whose time is over, in this process alone."""
    store = self._machine.kv
    keys = yield from self._machine.dead_steps(self._now_ms(), 1024)
    store.now_ms = self._now_ms()
    yield from store._bury_all(keys)
    self._removing = False
    self.look()


get: Final = Kv.get
sum_of: Final = conditions.sum_of
put: Final = Kv._put


# -- times and leases


def half_as_long(self: Kv, ttl_ms: int) -> int:
    """Have keys end when half of their time is over."""
    return ending(self, max(1, ttl_ms // 2))


def a_while_longer(self: Kv, ttl_ms: int) -> int:
    """Have keys end ten minutes late."""
    return ending(self, ttl_ms + 600_000)


def all_but_one(self: LeaseCommands, lease_ids: list[int]) -> Steps[int]:
    """End leases, and leave one of their keys where it is, without a lease."""
    keys = [key for lease_id in lease_ids for key in self._leases.end(lease_id)]
    for key in keys[:1]:
        entry = self._entries.entries.get(key)
        assert entry is not None
        self._leases.removed(key, entry)
    return (yield from self._entries.remove_keys(keys[1:], len(keys), event_history.EXPIRE))


def one_by_one(self: LeaseCommands, lease_ids: list[int]) -> Steps[int]:
    """End leases, and remove each of their keys at a revision of its own."""
    keys = [key for lease_id in lease_ids for key in self._leases.end(lease_id)]
    for key in keys:
        yield from self._entries.remove_keys([key], 1, event_history.EXPIRE)
    return len(keys)


def without_a_fence(self: Leases, token: int) -> None:
    """Refuse no change for its fence."""


def fenced_always(self: Leases, token: int) -> Failure:
    """Refuse each change with a fence."""
    return failure(Code.FENCED, {"token": token}, outcome="not_applied")


def kept_with_the_lease(self: Leases, key: str, previous: Any, version: int, lease_id: int | None) -> None:
    """Let a key that is written without its lease stay in it."""
    moved(self, key, previous, version, self.of_key.get(key) if lease_id is None else lease_id)


def not_renewed(self: LeaseDeadlines, lease_ids: Sequence[int], now_ms: int) -> tuple[int | None, ...]:
    """Answer a renewal, and give the leases no time for it."""
    return tuple(map(self._ttls_ms.get, lease_ids))


def renewed_for_ever(self: LeaseDeadlines, lease_ids: Sequence[int], now_ms: int) -> tuple[int | None, ...]:
    """Give renewed leases a day."""
    return renew(self, lease_ids, now_ms + 86_400_000)


def ended_in_memory(self: LeaseKeeper, lease_ids: list[int]) -> None:
    """End leases in this process alone."""
    finish(self._machine._lease_commands._end(lease_ids))
    self._ending = None


ending: Final = Kv._ending
moved: Final = Leases.moved
renew: Final = LeaseDeadlines.renew


# -- the watches


def packed_without_one(events: list[Event], start: int, ahead: int, with_previous: bool) -> tuple[bytes, int, int]:
    """Leave out an event now and then."""
    if events[start][0] % 3 == 0 and start + 1 < len(events):
        start += 1
    return pack(events, start, ahead, with_previous)


def loses_one(self: EventHistory, events: list[Event], compacted: int) -> None:
    """Take over the events of a snapshot but for the newest."""
    restore(self, events[:-1], compacted)


def resumes_at(step: int) -> Callable[[WatchPosition], dict[str, Any]]:
    """Go on at another revision than the next one."""

    def beginning(self: WatchPosition) -> dict[str, Any]:
        found = options(self)
        if self.seen is None or self.seen + step < 0:
            return found
        return {**found, "start_revision": self.seen + 1 + step}

    return beginning


def repeats_a_part(self: WatchPosition) -> dict[str, Any]:
    """Forget how many events of a revision were given before the connection was lost."""
    found = options(self)
    self._skip = 0
    return found


def drops_in_silence(self: EventHistory) -> None:
    """Give up the oldest events, and not know it."""
    compacted = self.compacted
    drop_oldest(self)
    self.compacted = compacted


def begins_later(self: Watches, submitter: Any, op: operations.OpenWatch, *others: Any) -> Any:
    """Begin a watch behind the changes that are not kept any more, and say nothing."""
    oldest = self._machine.kv.events.compacted + 1
    if op.start_revision is not None and op.start_revision < oldest:
        op = msgspec.structs.replace(op, start_revision=oldest)
    return open_watch(self, submitter, op, *others)


pack: Final = items.pack
open_watch: Final = Watches.open
restore: Final = EventHistory.restore
options: Final = WatchPosition.options
drop_oldest: Final = EventHistory._drop_oldest


#: Each fault by its name: the patch that plants it.
PLANTED: Final[dict[str, Callable[[], Any]]] = {
    "records are not synced": partial(patch.object, MemoryFile, "fdatasync", unsynced),
    "new segments are not synced": partial(patch.object, MemoryFile, "fsync", unsynced),
    "names are not synced": partial(patch.object, MemoryFileSystem, "sync_directory", unsynced),
    "a repeated change is applied again": partial(patch.object, Requests, "remember", forgets),
    "answers come before the disk": partial(patch.object, ClusterOfOne, "propose", answered_first),
    "changed keys are not written": partial(patch.object, StoredKeyring, "_replace", kept_in_memory),
    "keys that are needed are dropped": partial(patch.object, assembly, "used_key_ids", none_used),
    "a backup lacks the last changes": partial(patch.object, backups, "extent_of", without_the_end),
    "half of a segment is archived": partial(patch.object, archive, "copy_content", half),
    "a failed copy counts as archived": partial(patch.object, Archiver, "_worked", through_what_failed),
    "a read is stale": partial(patch.object, Kv, "get", before_the_last_change),
    "an increment is lost": partial(patch.object, kv, "sum_of", one_is_lost),
    "a change is answered and not made": partial(patch.object, Kv, "_put", not_all),
    "the end of a key is not logged": partial(patch.object, Expiry, "_steps", without_the_log),
    "keys end early": partial(patch.object, Kv, "_ending", half_as_long),
    "keys end late": partial(patch.object, Kv, "_ending", a_while_longer),
    "the end of a lease leaves a key": partial(patch.object, LeaseCommands, "_end", all_but_one),
    "the end of a lease has several revisions": partial(patch.object, LeaseCommands, "_end", one_by_one),
    "the end of a lease is not logged": partial(patch.object, LeaseKeeper, "_end", ended_in_memory),
    "a fence is not judged": partial(patch.object, Leases, "fenced", without_a_fence),
    "a fence that stands is refused": partial(patch.object, Leases, "fenced", fenced_always),
    "a key stays in a lease that it has left": partial(patch.object, Leases, "moved", kept_with_the_lease),
    "a renewal gives no time": partial(patch.object, LeaseDeadlines, "renew", not_renewed),
    "a renewed lease does not end": partial(patch.object, LeaseDeadlines, "renew", renewed_for_ever),
    "a watch in step misses an event": partial(patch.object, delivery, "pack", packed_without_one),
    "a watch that catches up misses an event": partial(patch.object, follower, "pack", packed_without_one),
    "a snapshot loses an event": partial(patch.object, EventHistory, "restore", loses_one),
    "a watch goes on too late": partial(patch.object, WatchPosition, "options", resumes_at(1)),
    "a watch goes on too early": partial(patch.object, WatchPosition, "options", resumes_at(-1)),
    "a watch repeats a part of a revision": partial(patch.object, WatchPosition, "options", repeats_a_part),
    "a watch leaves out changes that are not kept": partial(patch.object, Watches, "open", begins_later),
    "events are given up in silence": partial(patch.object, EventHistory, "_drop_oldest", drops_in_silence),
}
