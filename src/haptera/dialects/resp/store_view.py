"""The store as the commands of a transaction see it: the entries of one moment, and their own changes over them.

Redis runs each command of a transaction, and one that fails undoes none of the others. A transact of the store is all
or nothing. So the commands run on this view first, which tells each its result at once; the changes that succeeded in
it are made by one transact, on the condition that the entries by which a result was judged are still the same
(`haptera.dialects.resp.atomic_execution`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from msgspec import structs

from haptera.errors import Code, Failure, failure
from haptera.key_rules import INT64_MAX, INT64_MIN, key_refusal, number_of, value_refusal
from haptera.node.commands import operations

if TYPE_CHECKING:
    from haptera.node.commands import Envelope, Result

#: A value, the version that wrote it, and the time at which it expires in Unix milliseconds, or None.
Entry = tuple[bytes, int, int | None]
#: Looks at the entries of keys in the store, all at one moment; None for a missing one.
Look = Callable[[Sequence[str]], list[Entry | None]]

_OPERATORS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}


class NetChange(NamedTuple):
    """The net change of a key: its value, None where it is gone, and its time to live in milliseconds.

    With ``keep_ttl`` the time stays as it is.
    """

    value: bytes | None
    ttl_ms: int | None = None
    keep_ttl: bool = False


class StoreView:
    """The entries that ``look`` finds, as of ``now_ms``, and the changes over them. It lives for one turn of the loop,
    in which the store does not change.

    ``judged`` has the version of each key by whose entry a result was judged, 0 for a missing one. ``made`` are the
    changes in their order, and ``net`` the net change of each key.
    """

    def __init__(self, look: Look, now_ms: int) -> None:
        self.judged: dict[str, int] = {}
        self.made: list[operations.OfOneKey] = []
        self.net: dict[str, NetChange] = {}
        #: Whether a key was renamed, whose time to live no other key can be given exactly.
        self.renamed: bool = False
        self._look = look
        self._now_ms = now_ms
        self._found: dict[str, Entry | None] = {}
        self._over: dict[str, Entry | None] = {}
        self._changes = 0

    def submit(self, commands: Sequence[Envelope], done: Callable[[list[Result]], None]) -> None:
        """Run operations and call ``done`` at once, as `Commands.submit` does for reads."""
        done([self.run(command.op) for command in commands])

    def run(self, op: operations.Operation) -> Result:
        """The result array of an operation of the service `kv`, or its failure, which changes nothing.

        Raises LookupError for one that cannot be part of a transaction: of a range of keys, or of the past.
        """
        method = _METHODS.get(type(op))
        if method is None:
            raise LookupError(type(op).__name__)
        result: Result = method(self, op)
        return result

    # -- entries ----------------------------------------------------------------------------------------------------

    def _entries(self, keys: Sequence[str]) -> list[Entry | None]:
        """The present entries of keys, by which a result is judged."""
        unknown = [key for key in dict.fromkeys(keys) if key not in self._over and key not in self._found]
        if unknown:
            for key, found in zip(unknown, self._look(unknown), strict=True):
                self._found[key] = found
                self.judged[key] = 0 if found is None else found[1]
        return [self._over[key] if key in self._over else self._found[key] for key in keys]

    def _entry(self, key: str) -> Entry | Failure | None:
        refused = key_refusal(key)
        return refused if refused is not None else self._entries((key,))[0]

    def _next_version(self) -> int:
        """A version below all that the store has: the real one is known when the transact is made."""
        self._changes += 1
        return -self._changes

    def _put(self, key: str, value: bytes, expires_at_ms: int | None, change: NetChange) -> int:
        version = self._next_version()
        self._over[key] = (value, version, expires_at_ms)
        before = self.net.get(key)
        if change.keep_ttl and before is not None:
            change = NetChange(change.value, before.ttl_ms, before.keep_ttl)
        self.net[key] = change
        return version

    def _remove(self, key: str) -> int:
        self._over[key] = None
        self.net[key] = NetChange(None)
        return self._next_version()

    def _ending(self, ttl_ms: int | None) -> int | None:
        return None if ttl_ms is None else self._now_ms + ttl_ms

    # -- reads ------------------------------------------------------------------------------------------------------

    def _get(self, op: operations.Get) -> Result:
        entry = self._entry(op.key)
        return _missing(op.key) if entry is None else entry

    def _exists(self, op: operations.Exists) -> Result:
        entry = self._entry(op.key)
        return entry if isinstance(entry, Failure) else (entry is not None,)

    def _ttl(self, op: operations.TimeToLive) -> Result:
        entry = self._entry(op.key)
        if entry is None or isinstance(entry, Failure):
            return _missing(op.key) if entry is None else entry
        return (None if entry[2] is None else entry[2] - self._now_ms,)

    def _get_many(self, op: operations.GetMany) -> Result:
        refused = next((each for each in map(key_refusal, op.keys) if each is not None), None)
        return (self._entries(op.keys),) if refused is None else refused

    # -- changes ----------------------------------------------------------------------------------------------------

    def _set(self, op: operations.Set) -> Result:
        key = op.key
        refused = key_refusal(key) or value_refusal(key, len(op.value))
        if refused is not None:
            return refused
        previous: Entry | None = None
        if op.if_version is not None or op.condition is not None or op.return_previous or op.keep_ttl:
            found = self._entry(key)
            if isinstance(found, Failure):
                return found
            previous = found
            if (refused := _unmet(op, previous)) is not None:
                return refused
        kept = op.keep_ttl and op.ttl_ms is None
        expires_at_ms = previous[2] if kept and previous is not None else self._ending(op.ttl_ms)
        version = self._put(key, op.value, expires_at_ms, NetChange(op.value, op.ttl_ms, kept))
        self.made.append(structs.replace(op, if_version=None, condition=None, return_previous=False))
        return (version, previous if op.return_previous else None)

    def _set_many(self, op: operations.SetMany) -> Result:
        for key, value in op.items:
            refused = key_refusal(key) or value_refusal(key, len(value))
            if refused is not None:
                return refused
        for key, value in dict(op.items).items():
            self._set(operations.Set(key, value, ttl_ms=op.ttl_ms))
        return (-self._changes,)

    def _delete(self, op: operations.Delete) -> Result:
        found = self._entry(op.key)
        if isinstance(found, Failure):
            return found
        if op.if_version is not None and op.if_version != (0 if found is None else found[1]):
            return _mismatch(op.key)
        if found is None:
            return (False, None, None)
        self.made.append(operations.Delete(op.key))
        return (True, self._remove(op.key), found if op.return_previous else None)

    def _delete_many(self, op: operations.DeleteMany) -> Result:
        entries = self._get_many(operations.GetMany(op.keys))
        if isinstance(entries, Failure):
            return entries
        results = [self._delete(operations.Delete(key)) for key in dict.fromkeys(op.keys)]
        versions = [result[1] for result in results if isinstance(result, tuple) and result[0]]
        return (len(versions), versions[-1] if versions else None)

    def _get_and_delete(self, op: operations.GetAndDelete) -> Result:
        entry = self._get(operations.Get(op.key))
        if not isinstance(entry, tuple):
            return entry
        self.made.append(operations.Delete(op.key))
        return (*entry, self._remove(op.key))

    def _increment(self, op: operations.Increment) -> Result:
        found = self._entry(op.key)
        if isinstance(found, Failure):
            return found
        number = op.initial if found is None else number_of(found[0])
        if number is None:
            return failure(Code.NOT_AN_INTEGER, {"key": op.key})
        number += op.delta
        if not INT64_MIN <= number <= INT64_MAX:
            return failure(Code.INTEGER_OVERFLOW, {"key": op.key})
        value = b"%d" % number
        expires_at_ms = None if found is None else found[2]
        version = self._put(op.key, value, expires_at_ms, NetChange(value, keep_ttl=True))
        self.made.append(op)
        return (number, version)

    def _rename(self, op: operations.Rename) -> Result:
        entry, target = self._entry(op.key), self._entry(op.new_key)
        for found in (entry, target):
            if isinstance(found, Failure):
                return found
        if entry is None or isinstance(entry, Failure):
            return _missing(op.key)
        if op.if_absent and target is not None:
            return failure(Code.KEY_EXISTS, {"key": op.new_key})
        self.renamed = True
        if op.key != op.new_key:
            self._remove(op.key)
        version = self._put(op.new_key, entry[0], entry[2], NetChange(entry[0], keep_ttl=op.key == op.new_key))
        self.made.append(structs.replace(op, if_absent=False))
        return (version,)

    def _expire(self, op: operations.Expire) -> Result:
        found = self._entry(op.key)
        if found is None or isinstance(found, Failure):
            return _missing(op.key) if found is None else found
        version = self._put(op.key, found[0], self._ending(op.ttl_ms), NetChange(found[0], op.ttl_ms))
        self.made.append(op)
        return (version,)

    def _get_and_expire(self, op: operations.GetAndExpire) -> Result:
        result = self._expire(operations.Expire(op.key, op.ttl_ms))
        return self._get(operations.Get(op.key)) if isinstance(result, tuple) else result

    # -- transacts --------------------------------------------------------------------------------------------------

    def _transact(self, op: operations.Transact) -> Result:
        """The chosen branch, of which all or nothing is made here too."""
        succeeded = True
        for compare in op.compares:
            found = self._entry(compare.key)
            if isinstance(found, Failure):
                return found
            succeeded = succeeded and _holds(compare, found)
        before = self._state()
        results: list[tuple[Any, ...] | None] = []
        for each in op.then if succeeded else op.otherwise:
            result = self.run(each)
            if isinstance(result, tuple):
                results.append(result)
            elif isinstance(each, _READS) and isinstance(result, Failure) and result.code == Code.KEY_NOT_FOUND:
                results.append(None)
            else:
                self._restore(before)
                return result
        changed = len(self.made) > len(before[0])
        return (succeeded, -self._changes if changed else None, tuple(results))

    def _state(self) -> tuple[list[operations.OfOneKey], dict[str, NetChange], dict[str, Entry | None], bool]:
        return list(self.made), dict(self.net), dict(self._over), self.renamed

    def _restore(
        self, state: tuple[list[operations.OfOneKey], dict[str, NetChange], dict[str, Entry | None], bool]
    ) -> None:
        self.made, self.net, self._over, self.renamed = state


def _missing(key: str) -> Failure:
    return failure(Code.KEY_NOT_FOUND, {"key": key})


def _mismatch(key: str) -> Failure:
    return failure(Code.VERSION_MISMATCH, {"key": key})


def _unmet(op: operations.Set, previous: Entry | None) -> Failure | None:
    """Why a set is not made, if its conditions are not met."""
    if op.if_version is not None and op.if_version != (0 if previous is None else previous[1]):
        return _mismatch(op.key)
    if op.condition is not None and (previous is None) is (op.condition == "present"):
        return _missing(op.key) if previous is None else failure(Code.KEY_EXISTS, {"key": op.key})
    return None


def _holds(compare: operations.Compare, entry: Entry | None) -> bool:
    """Whether a compare holds for the entry of its key."""
    actual: Any
    if compare.field == "version":
        actual = 0 if entry is None else entry[1]
    elif compare.field == "value":
        if entry is None:
            return False
        actual = entry[0]
    else:
        assert compare.field == "exists", "no command of the dialect asks for a lease"
        actual = entry is not None
    return _OPERATORS[compare.operator](actual, compare.operand)


_READS: Final = (operations.Get, operations.Exists, operations.TimeToLive)

_METHODS: Final[dict[type[operations.Operation], Callable[[StoreView, Any], Result]]] = {
    operations.Get: StoreView._get,
    operations.Exists: StoreView._exists,
    operations.TimeToLive: StoreView._ttl,
    operations.GetMany: StoreView._get_many,
    operations.Set: StoreView._set,
    operations.SetMany: StoreView._set_many,
    operations.Delete: StoreView._delete,
    operations.DeleteMany: StoreView._delete_many,
    operations.GetAndDelete: StoreView._get_and_delete,
    operations.Increment: StoreView._increment,
    operations.Rename: StoreView._rename,
    operations.Expire: StoreView._expire,
    operations.GetAndExpire: StoreView._get_and_expire,
    operations.Transact: StoreView._transact,
}
