"""MaintenancePeriod, which refuses changes in the order of the log, and the head of the audit log."""

from __future__ import annotations

from typing import Final

import pytest

from haptera.errors import Failure
from haptera.state import OPERATIONS, Logged, Replayed, Write, validate
from haptera.state.access_operations import AccessChange, AddRole, AddUser
from haptera.state.node_operations import AUDIT_DIGEST_SIZE, NoteAuditHead, SetMaintenance
from haptera.state.node_record import AuditHead, MaintenancePeriod
from haptera.state.operation_sets import CLOSED
from haptera.state.operations import (
    Clear,
    Compare,
    Delete,
    DeleteMany,
    EndLeases,
    Expire,
    ExpireDue,
    Forget,
    Get,
    GetAndDelete,
    GetAndExpire,
    GrantLease,
    Increment,
    LeaveGap,
    Rename,
    RenewLease,
    RevokeLease,
    Set,
    SetMany,
    TimeToLive,
    Transact,
)
from tests.unit.state.store import Store, refused

ID, DIGEST = bytes(16), bytes(32)
ON: Final = SetMaintenance(True, "move")

#: Each kind of change of a caller, as one that would succeed in `filled` and as one that would change nothing there.
CHANGES: Final[list[Write]] = [
    Set("k", b"2"),
    Set("k", b"2", if_version=99),
    Set("leased", b"", lease=1),
    SetMany([("k", b"2"), ("n", b"")]),
    Delete("k"),
    Delete("none"),
    DeleteMany(["k"]),
    Increment("number"),
    Rename("k", "new"),
    Rename("none", "new"),
    Clear(),
    Clear("none/"),
    GetAndDelete("k"),
    GetAndDelete("none"),
    GetAndExpire("k", 1000),
    GetAndExpire("k", persist=True),
    Expire("k", 1000),
    GrantLease(10_000),
    RevokeLease(1),
    RevokeLease(99),
    Transact([], [Set("k", b"2")]),
    Transact([Compare("none", "exists", "=", True)], [Set("k", b"2")], [Get("k")]),
    Transact([Compare("k", "exists", "=", True)], [Get("k")], [Delete("k")]),
]


def filled() -> Store:
    """A store with the lease 1, a key of it, one that expires, and others."""
    store = Store()
    for op in (GrantLease(10_000), Set("k", b"1"), Set("of-lease", b"", lease=1), Set("number", b"5")):
        assert isinstance(store.do(op), tuple)
    assert isinstance(store.do(Set("short", b"", ttl_ms=1000)), tuple)
    return store


def closed() -> Store:
    store = filled()
    assert store.do(ON) == (True,)
    return store


def period(store: Store) -> MaintenancePeriod | None:
    return store.node.maintenance


def head(store: Store) -> AuditHead | None:
    return store.node.audit_head


@pytest.mark.parametrize("op", CHANGES, ids=repr)
def test_maintenance_refuses_each_change_whether_or_not_it_would_succeed(op: Write) -> None:
    store = closed()
    before = store.kv.digest(), store.leases.digest(), store.revision
    assert refused(store.known(Logged(op)), 5004, reason="move")
    assert refused(store.do(op), 5004, reason="move")
    assert (store.kv.digest(), store.leases.digest(), store.revision) == before


def test_each_change_that_a_caller_can_ask_for_is_among_those() -> None:
    asked = {op for op in OPERATIONS if issubclass(op, Write) and not (op.of_node or issubclass(op, AccessChange))}
    assert {type(op) for op in CHANGES} == asked - {Forget} == CLOSED


def test_no_change_of_users_is_among_those() -> None:
    """An administrator can let people in, and keep them out, while nothing else is changed."""
    assert not [op for op in CLOSED if issubclass(op, AccessChange)]


def test_reads_transacts_of_reads_and_renewals_go_on() -> None:
    store = closed()
    assert store.ask(Get("k")) == (b"1", 2, None)
    assert isinstance(store.ask(TimeToLive("short")), tuple)
    assert store.ask(RenewLease([1])) == ((10_000,),)
    op = Transact([Compare("k", "exists", "=", True)], [Get("k")], [Get("number")])
    assert store.known(Logged(op)) == store.do(op) == (True, None, ((b"1", 2, None),))


def test_keys_expire_and_leases_end_at_their_time() -> None:
    store = closed()
    store.wait(1000)
    assert store.do(ExpireDue(["short"])) == (1, 6)
    assert store.do(EndLeases([1])) == (1, 1, 7)
    assert store.value("of-lease") is None


def test_gaps_forgetting_users_and_the_audit_go_on() -> None:
    store = closed()
    assert isinstance(store.do(LeaveGap(bytes(range(16)))), tuple)
    assert store.do(Forget("", [ID])) == (0,)
    assert store.do(AddRole("app", [])) == store.do(AddUser("ann", None, ["app"])) == (True,)
    assert store.do(NoteAuditHead(1, DIGEST)) == (True,)


def test_an_entry_is_judged_command_by_command() -> None:
    store = filled()
    commands = [Logged(op) for op in (Set("a", b""), ON, Set("b", b""), SetMaintenance(False), Set("c", b""))]
    results = store.apply(store.index + 1, store.now_ms, commands)
    assert [isinstance(result, Failure) for result in results] == [False, False, True, False, False]
    assert (store.value("a"), store.value("b"), store.value("c")) == (b"", None, b"")


def test_a_change_of_before_is_answered_as_it_was() -> None:
    store = filled()
    answer = store.do(Set("a", b""), "ann", ID, DIGEST)
    assert store.do(ON) == (True,)
    assert store.do(Set("a", b""), "ann", ID, DIGEST) == Replayed(answer)  # type: ignore[arg-type]
    logged = Logged(Set("a", b""), "ann", ID, DIGEST)
    assert store.known(logged) == store.known_in_maintenance(logged) == Replayed(answer)  # type: ignore[arg-type]
    assert refused(
        store.known_in_maintenance(Logged(Set("a", b""), "ann", bytes([1]) * 16, DIGEST)), 5004, reason="move"
    )


def test_a_refusal_is_forgotten_unless_another_copy_of_the_change_may_come() -> None:
    store = closed()
    assert refused(store.do(Set("a", b""), "ann", ID, DIGEST), 5004, reason="move")
    copied = Logged(Set("b", b""), "ann", bytes([1]) * 16, DIGEST, resent=True)
    assert store.known(copied) is None
    assert store.known_in_maintenance(copied) is None
    assert refused(store.do(copied.op, "ann", copied.request_id, DIGEST, resent=True), 5004, reason="move")
    assert store.do(SetMaintenance(False)) == (True,)
    assert isinstance(store.do(Set("a", b""), "ann", ID, DIGEST), tuple)
    replayed = store.do(copied.op, "ann", copied.request_id, DIGEST)
    assert isinstance(replayed, Replayed)
    assert refused(replayed.result, 5004, reason="move")


def test_no_change_is_known_where_there_is_no_maintenance() -> None:
    store = filled()
    assert store.known(Logged(Set("k", b"2"))) is None
    assert store.known_in_maintenance(Logged(Set("k", b"2"))) is None


def test_maintenance_has_a_reason_and_the_time_of_its_entry() -> None:
    store = filled()
    store.now_ms += 5
    began = store.now_ms
    assert store.do(SetMaintenance(False)) == (False,)
    assert store.known(Logged(ON)) is None
    assert period(store) is None
    assert store.do(ON) == (True,)
    store.now_ms += 5
    assert store.known(Logged(ON)) == store.do(ON) == (False,)
    assert period(store) == MaintenancePeriod("move", began)
    assert store.do(SetMaintenance(True, "a disk is replaced")) == (True,)
    assert period(store) == MaintenancePeriod("a disk is replaced", began)
    assert store.do(SetMaintenance(False)) == (True,)
    assert period(store) is None


def test_the_audit_line_of_the_highest_number_stays() -> None:
    store = Store()
    one, two = b"1" * AUDIT_DIGEST_SIZE, b"2" * AUDIT_DIGEST_SIZE
    assert store.known(Logged(NoteAuditHead(7, one))) is None
    assert head(store) is None
    assert store.do(NoteAuditHead(7, one)) == (True,)
    for op in (NoteAuditHead(7, two), NoteAuditHead(6, two)):
        assert store.known(Logged(op)) == store.do(op) == (False,)
    assert head(store) == AuditHead(7, one)
    assert store.do(NoteAuditHead(8, two)) == (True,)
    assert head(store) == AuditHead(8, two)


@pytest.mark.parametrize(
    "op",
    [
        SetMaintenance(True),
        SetMaintenance(True, "a\nb"),
        SetMaintenance(True, "\x9b31m"),
        SetMaintenance(True, "é" * 129),
        SetMaintenance(True, "\ud800"),
        SetMaintenance(False, "move"),
        NoteAuditHead(0, DIGEST),
        NoteAuditHead(2**53, DIGEST),
        NoteAuditHead(1, bytes(31)),
    ],
    ids=repr,
)
def test_a_reason_a_number_or_a_digest_that_is_none_is_refused(op: Write) -> None:
    found = validate(op)
    assert isinstance(found, Failure)
    assert found.code == 3003


def test_the_largest_reason_is_taken() -> None:
    assert validate(SetMaintenance(True, "é" * 128)) is None


def test_states_that_differ_in_the_record_have_two_digests() -> None:
    stores = [filled() for _ in range(5)]
    ops = (ON, SetMaintenance(True, "other"), NoteAuditHead(1, bytes(32)), NoteAuditHead(1, b"1" * 32), None)
    for store, op in zip(stores, ops, strict=True):
        store.apply(store.index + 1, store.now_ms, [] if op is None else [Logged(op)])
    assert len({store.digest() for store in stores}) == 5
