"""The commands of the replicated state: one class for each, from which all else about it follows. Commands of users,
roles and tokens are in `haptera.state.access_operations`, those about the node in `haptera.state.node_operations`.

From the fields of a class and their kinds follow the form of a command in the log (`haptera.state.command_encoding`),
its validation, its size, and the argument of the service's method (`haptera.node.services.method_arguments`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Final, Literal, Union

import msgspec
from msgspec import Struct

from haptera.kv_groups import HISTORY, LEASES, TRANSACT, TTL, WATCH
from haptera.state.field_kinds import (
    Bound,
    Condition,
    GlobText,
    Integer,
    Items,
    KeepTtl,
    Key,
    Keys,
    LeaseIds,
    LeaseOfKey,
    LeaseTtl,
    PastTime,
    Persist,
    ProgressInterval,
    RequestIds,
    ServerId,
    StartRevision,
    Text,
    Token,
    Ttl,
    Value,
    Version,
    WatchedKey,
)
from haptera.state.needs import Needs


class Operation(Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """The base of all commands, whose tag is their part of the state and their method there.

    A method of the service is defined here alone. Its request has the fields without a default in an array, and the
    others as options in a map at the array's end, by their names or the names that `msgspec.field` gives them. Commands
    hold text, bytes, numbers and flat lists, so the garbage collector need not follow them.
    """

    #: How many fields a request has in its array, where that is not the number of fields without a default.
    positional: ClassVar[int | None] = None
    #: Whether options may follow in a request though none is known yet.
    may_have_options: ClassVar[bool] = False
    #: The capability that a request for it needs; None for what is in version 1 of the service.
    group: ClassVar[str | None] = None
    #: The capability that each option needs, by the option's name in a request; options of version 1 are not here.
    option_groups: ClassVar[Mapping[str, str]] = {}
    #: Whether it is of one key, or of two, and so may be an operation of a transact.
    of_one_key: ClassVar[bool] = False
    #: The permissions that it needs; None for a command that is no method, or that is judged in a way of its own.
    needs: ClassVar[Needs | None] = None


class Read(Operation, frozen=True):
    """The base of commands that are answered at once from the applied state, and are not logged."""


class Write(Operation, frozen=True):
    """The base of commands that are logged."""

    #: The place of the new version in the result (nil there: nothing was changed); None where it has none.
    version_at: ClassVar[int | None] = None
    #: Whether the change may be of any number of keys, and so is applied in slices.
    in_slices: ClassVar[bool] = False
    #: Whether the change can only take something away, so that it goes on where there is no room for others.
    frees: ClassVar[bool] = False
    #: Whether the node alone logs it, so that it is no method.
    of_node: ClassVar[bool] = False
    #: Whether the change goes on during maintenance (`haptera.state.node_record`).
    goes_on: ClassVar[bool] = False


class Get(Read, tag="kv.get", frozen=True):
    of_one_key = True
    needs: ClassVar[Needs] = Needs(key=("read",))

    key: Key


class Set(Write, tag="kv.set", frozen=True):
    """``if_version`` is the version the key must have (0: it must be absent); ``condition`` is judged after it. Without
    ``ttl_ms`` or ``keep_ttl`` the key does not expire any more, and without ``lease`` it belongs to none.
    """

    version_at: ClassVar[int] = 0
    of_one_key = True
    option_groups: ClassVar[Mapping[str, str]] = {"ttl_ms": TTL, "keep_ttl": TTL, "lease": LEASES, "fence": LEASES}
    needs: ClassVar[Needs] = Needs(
        key=("write",), options={"if_version": "read", "return_previous": "read", "lease": "lease"}
    )

    key: Key
    value: Value
    if_version: Version | None = None
    condition: Condition | None = msgspec.field(default=None, name="if")
    return_previous: bool = False
    ttl_ms: Ttl | None = None
    keep_ttl: KeepTtl = False
    lease: LeaseOfKey | None = None
    fence: Token | None = None


class Delete(Write, tag="kv.delete", frozen=True):
    version_at: ClassVar[int] = 1
    of_one_key = True
    frees = True
    option_groups: ClassVar[Mapping[str, str]] = {"fence": LEASES}
    needs: ClassVar[Needs] = Needs(key=("delete",), options={"if_version": "read", "return_previous": "read"})

    key: Key
    if_version: Version | None = None
    return_previous: bool = False
    fence: Token | None = None


class Exists(Read, tag="kv.exists", frozen=True):
    of_one_key = True
    needs: ClassVar[Needs] = Needs(key=("read",))

    key: Key


class GetMany(Read, tag="kv.get_many", frozen=True):
    needs: ClassVar[Needs] = Needs(keys=("read",))

    keys: Keys


class SetMany(Write, tag="kv.set_many", frozen=True):
    """The last of a doubled key wins. Without ``ttl_ms`` none of the keys expires any more, and without ``lease`` none
    belongs to one.
    """

    version_at: ClassVar[int] = 0
    in_slices = True
    may_have_options = True
    option_groups: ClassVar[Mapping[str, str]] = {"ttl_ms": TTL, "lease": LEASES, "fence": LEASES}
    needs: ClassVar[Needs] = Needs(items=("write",), options={"lease": "lease"})

    items: Items
    ttl_ms: Ttl | None = None
    lease: LeaseOfKey | None = None
    fence: Token | None = None


class DeleteMany(Write, tag="kv.delete_many", frozen=True):
    version_at: ClassVar[int] = 1
    in_slices = True
    frees = True
    option_groups: ClassVar[Mapping[str, str]] = {"fence": LEASES}
    needs: ClassVar[Needs] = Needs(keys=("delete",))

    keys: Keys
    fence: Token | None = None


class Increment(Write, tag="kv.increment", frozen=True):
    version_at: ClassVar[int] = 1
    of_one_key = True
    positional: ClassVar[int] = 2  # a request always has the delta, which an entry of the log may leave out
    option_groups: ClassVar[Mapping[str, str]] = {"fence": LEASES}
    needs: ClassVar[Needs] = Needs(key=("read", "write"))  # the sum tells the number of before

    key: Key
    delta: Integer = 1
    initial: Integer = 0
    fence: Token | None = None


class Rename(Write, tag="kv.rename", frozen=True):
    version_at: ClassVar[int] = 0
    of_one_key = True
    option_groups: ClassVar[Mapping[str, str]] = {"fence": LEASES}
    needs: ClassVar[Needs] = Needs(key=("read", "delete"), new_key=("write",))  # it may move to where it may be read

    key: Key
    new_key: Key
    if_absent: bool = False
    fence: Token | None = None


class GetAndDelete(Write, tag="kv.get_and_delete", frozen=True):
    version_at: ClassVar[int] = 3
    frees = True
    group: ClassVar[str] = TTL
    of_one_key = True
    option_groups: ClassVar[Mapping[str, str]] = {"fence": LEASES}
    needs: ClassVar[Needs] = Needs(key=("read", "delete"))

    key: Key
    fence: Token | None = None


class GetAndExpire(Write, tag="kv.get_and_expire", frozen=True):
    """One of ``ttl_ms`` and ``persist`` is given."""

    version_at: ClassVar[int] = 1
    group: ClassVar[str] = TTL
    of_one_key = True
    option_groups: ClassVar[Mapping[str, str]] = {"fence": LEASES}
    needs: ClassVar[Needs] = Needs(key=("read", "write"))

    key: Key
    ttl_ms: Ttl | None = None
    persist: Persist = False
    fence: Token | None = None


class Expire(Write, tag="kv.expire", frozen=True):
    """Without ``ttl_ms`` the key does not expire any more."""

    version_at: ClassVar[int] = 0
    group: ClassVar[str] = TTL
    of_one_key = True
    option_groups: ClassVar[Mapping[str, str]] = {"fence": LEASES}
    needs: ClassVar[Needs] = Needs(key=("write",))

    key: Key
    ttl_ms: Ttl | None
    fence: Token | None = None


class TimeToLive(Read, tag="kv.ttl", frozen=True):
    group: ClassVar[str] = TTL
    of_one_key = True
    needs: ClassVar[Needs] = Needs(key=("read",))

    key: Key


class ExpireDue(Write, tag="kv.expire_due", frozen=True):
    """Remove those of the keys whose time has come: the node asks for it when that may be."""

    version_at: ClassVar[int] = 1
    in_slices = True
    frees = True
    of_node = True
    goes_on = True

    keys: Keys


class LeaveGap(Write, tag="kv.leave_gap", frozen=True):
    """Go on with a higher revision and under another id, because changes may be lost (`haptera.state.gaps`)."""

    of_node = True
    goes_on = True

    server_id: ServerId


class OpenScan(Operation, tag="kv.scan", frozen=True):
    """The entries in a range, in key order. ``after`` is a key: the scan goes on beyond it, in its direction."""

    prefix: Bound | None = None
    start: Bound | None = None
    end: Bound | None = None
    glob: GlobText | None = None
    limit: Version | None = None
    reverse: bool = False
    keys_only: bool = False
    after: Bound | None = None


class OpenWatch(Operation, tag="kv.watch", frozen=True):
    """The changes of one key, or of the keys with a prefix, from a revision on."""

    group: ClassVar[str] = WATCH
    needs: ClassVar[Needs] = Needs(key=("watch", "read"), prefix=("watch", "read"))

    key: WatchedKey | None = None
    prefix: Bound | None = None
    start_revision: StartRevision | None = None
    initial: bool = False
    with_previous: bool = False
    progress_ms: ProgressInterval | None = None


class OpenHistory(Operation, tag="kv.history", frozen=True):
    """The versions of one key that are still kept, above the version ``after``: ``limit`` of them at most."""

    group: ClassVar[str] = HISTORY
    needs: ClassVar[Needs] = Needs(key=("read",))

    key: Key
    limit: Version | None = None
    after: Version | None = None


class Count(Read, tag="kv.count", frozen=True):
    """The keys in a range: ``start`` inclusive, ``end`` exclusive, with the prefix, matching the glob."""

    prefix: Bound | None = None
    start: Bound | None = None
    end: Bound | None = None
    glob: GlobText | None = None


class AsOf(Operation, frozen=True):
    """A read of the store as it was after the change ``at_revision``, or at the time ``at_time_ms``: one of the two is
    given. It is asked for by options of the read's method, and is neither logged nor a part of a transact.
    """

    group: ClassVar[str] = HISTORY

    read: Get | GetMany | OpenScan | Count
    at_revision: Version | None = None
    at_time_ms: PastTime | None = None


#: The reads that may be of the past.
OF_PAST: Final = (Get, GetMany, OpenScan, Count)


def read_of(op: Operation) -> Operation:
    """The read itself, of the present or the past; any other operation as it is."""
    return op.read if isinstance(op, AsOf) else op


class Clear(Write, tag="kv.clear", frozen=True):
    version_at: ClassVar[int] = 1
    in_slices = True
    frees = True
    option_groups: ClassVar[Mapping[str, str]] = {"fence": LEASES}
    needs: ClassVar[Needs] = Needs(prefix=("delete",))

    prefix: Bound | None = None
    fence: Token | None = None


class GrantLease(Write, tag="leases.grant_lease", frozen=True):
    """The new lease has the version of this change for its id, and belongs to the user of this change."""

    version_at: ClassVar[int] = 0
    group: ClassVar[str] = LEASES
    needs: ClassVar[Needs] = Needs(somewhere=("lease",))

    ttl_ms: LeaseTtl


class RenewLease(Read, tag="leases.renew_lease", frozen=True):
    """No change: when a lease ends is known to the node alone, which has this command logged for no one."""

    group: ClassVar[str] = LEASES
    needs: ClassVar[Needs] = Needs(somewhere=("lease",))

    leases: LeaseIds


class RevokeLease(Write, tag="leases.revoke_lease", frozen=True):
    """End a lease, and delete its keys."""

    version_at: ClassVar[int] = 1
    in_slices = True
    frees = True
    group: ClassVar[str] = LEASES
    needs: ClassVar[Needs] = Needs(somewhere=("lease",))

    lease: Token


class ListLeases(Read, tag="leases.leases", frozen=True):
    """The leases in the order of their ids, above ``after``: ``limit`` of them at most."""

    group: ClassVar[str] = LEASES
    needs: ClassVar[Needs] = Needs(somewhere=("lease",))

    after: Version | None = None
    limit: Version | None = None


class EndLeases(Write, tag="leases.end_leases", frozen=True):
    """End those of the leases that are there, and delete their keys: nothing has renewed them in time."""

    version_at: ClassVar[int] = 2
    in_slices = True
    frees = True
    of_node = True
    goes_on = True

    leases: LeaseIds


#: The commands that may be operations of a transact.
OF_ONE_KEY: Final = tuple(each for each in list(globals().values()) if getattr(each, "of_one_key", False))

if TYPE_CHECKING:
    OfOneKey = Read | Write
else:
    OfOneKey = Union[OF_ONE_KEY]  # noqa: UP007  # the decoder is to know every one by its tag

#: The fields of a key that a compare may be of, each with the operators that it takes.
COMPARED: Final = {
    **dict.fromkeys(("version", "value"), frozenset({"=", "!=", "<", ">"})),
    **dict.fromkeys(("exists", "lease"), frozenset({"=", "!="})),
}


class Compare(Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """A condition of a transact on one key. Its ``operand`` is a version, a value, whether the key exists, or the id
    of a lease, 0 for none.
    """

    key: str
    field: Literal["version", "value", "exists", "lease"]
    operator: Literal["=", "!=", "<", ">"]
    operand: bool | int | bytes


class Transact(Write, tag="kv.transact", frozen=True):
    """If all ``compares`` hold, the operations of ``then`` are made, and else those of ``otherwise``: all or none."""

    version_at: ClassVar[int] = 1
    group: ClassVar[str] = TRANSACT

    compares: list[Compare]
    then: list[OfOneKey]
    otherwise: list[OfOneKey] = []
    fence: Token | None = None


class Forget(Write, tag="requests.forget", frozen=True):
    """The user has read these answers and will not ask for them again (``answered_below``)."""

    frees = True
    goes_on = True

    user: Text
    request_ids: RequestIds
