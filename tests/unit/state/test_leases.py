"""Leases and fences: which keys belong to a lease, what its end removes, and whom a token lets through."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, cast

import pytest

from haptera.errors import Failure
from haptera.state import Logged, Replayed, StateMachine, dump_pieces, lease_commands, limits, load_pieces
from haptera.state.event_history import DELETE, EXPIRE
from haptera.state.event_pieces import expanded
from haptera.state.operations import (
    Clear,
    Compare,
    Count,
    Delete,
    DeleteMany,
    EndLeases,
    Expire,
    Get,
    GetAndDelete,
    GetAndExpire,
    GrantLease,
    Increment,
    ListLeases,
    Rename,
    RenewLease,
    RevokeLease,
    Set,
    SetMany,
    Transact,
    Write,
)
from haptera.state.sliced_work import finish
from tests.unit.state.store import Store, refused

if TYPE_CHECKING:
    from haptera.state import Result
    from haptera.state.operations import OfOneKey

ID, DIGEST = bytes(16), bytes(32)
THEN_1 = {"branch": "then", "operation": 1}


def leased() -> Store:
    """A store with the lease 1, to which `a` of version 2 belongs, and `b` of version 3, which belongs to none."""
    store = Store()
    assert store.do(GrantLease(5000)) == (1, 5000)
    store.do(Set("a", b"1", lease=1))
    store.do(Set("b", b"1"))
    return store


def keys_of(store: Store, lease: int = 1) -> set[str]:
    return set(store.leases.by_id[lease].keys)


def restored(store: Store) -> StateMachine:
    """The store as a snapshot gives it back."""
    machine = load_pieces(dump_pieces(store), index=store.index, time_ms=store.time_ms)
    machine.check()
    assert machine.digest() == store.digest()
    return machine


def test_a_grant_is_a_change_whose_version_is_the_id_of_the_lease_for_ever() -> None:
    store = Store()
    assert store.do(GrantLease(1000)) == (1, 1000)
    assert store.do(RevokeLease(1)) == (0, None)
    assert store.do(GrantLease(86_400_000)) == (2, 86_400_000)
    assert store.revision == 2


def test_one_lease_too_many_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LEASES_MAX", 2)
    store = Store()
    store.do(GrantLease(1000))
    store.do(GrantLease(1000))
    assert refused(store.do(GrantLease(1000)), 3007, leases_max=2)
    store.do(RevokeLease(1))
    assert store.do(GrantLease(1000)) == (3, 1000)


@pytest.mark.parametrize(
    "op",
    [Set("a", b"", lease=9), Set("a", b"", if_version=7, lease=9), SetMany([("a", b"")], lease=9), RevokeLease(9)],
)
def test_a_lease_that_is_not_there_is_refused_before_any_other_condition(op: Write) -> None:
    store = leased()
    assert refused(store.do(op), 4010, lease=9)
    assert store.value("a") == b"1"
    assert refused(store.do(Transact([], [Set("b", b"2"), Set("a", b"", lease=9)])), 4010, lease=9, **THEN_1)


def test_the_end_of_a_lease_removes_its_keys_at_one_revision_and_no_other_key() -> None:
    store = leased()
    store.do(SetMany([("c", b"1"), ("d", b"1")], lease=1))
    assert store.do(RevokeLease(1)) == (3, 5)
    assert store.ask(Count()) == (1,)
    assert store.value("b") == b"1"
    assert events_of(store)[-3:] == [(5, EXPIRE, "a"), (5, EXPIRE, "c"), (5, EXPIRE, "d")]
    assert refused(store.do(RevokeLease(1)), 4010, lease=1)


def events_of(store: Store) -> list[tuple[int, int, str]]:
    """The revision, the kind and the key of each event."""
    return [event[:3] for event in expanded(store.kv, store.kv.events.first)]


def test_the_node_ends_several_leases_at_one_revision_and_passes_over_missing_ones() -> None:
    store = leased()
    store.do(GrantLease(5000))
    store.do(Set("c", b"1", lease=4))
    assert store.do(EndLeases([1, 2, 4, 1])) == (2, 2, 6)
    assert (store.ask(Count()), store.revision) == ((1,), 6)
    assert store.do(EndLeases([1, 4])) == (0, 0, None)
    assert store.revision == 6


@pytest.mark.parametrize(
    ("op", "keys"),
    [
        (Set("a", b"2"), set()),
        (Set("a", b"2", lease=1), {"a"}),
        (Set("a", b"2", ttl_ms=1000), set()),
        (SetMany([("a", b"2")]), set()),
        (SetMany([("a", b"2"), ("b", b"2")], lease=1), {"a", "b"}),
        (Increment("a"), {"a"}),
        (Rename("a", "c"), {"c"}),
        (Rename("a", "b"), {"b"}),
        (Rename("a", "a"), {"a"}),
        (Rename("b", "a"), set()),
        (Expire("a", 1000), set()),
        (Expire("a", None), set()),
        (GetAndExpire("a", 1000), set()),
        (GetAndExpire("a", persist=True), set()),
        (Delete("a"), set()),
        (DeleteMany(["a"]), set()),
        (GetAndDelete("a"), set()),
        (Clear("a"), set()),
        (Clear(), set()),
    ],
)
def test_which_change_keeps_a_key_in_its_lease(op: Write, keys: set[str]) -> None:
    """Of one key in a transact too; and as a store that was restored from a snapshot would do it."""
    store = leased()
    other = restored(store)
    store.do(op)
    assert keys_of(store) == keys
    other.apply(store.index, store.now_ms, [Logged(op)])
    assert other.digest() == store.digest()
    restored(store)
    if op.of_one_key:
        inside = leased()
        inside.do(Transact([], [cast("OfOneKey", op)]))
        assert keys_of(inside) == keys
        assert inside.leases.fences.counts() == store.leases.fences.counts()


def test_a_key_that_was_made_again_by_another_owner_stays_when_the_old_lease_ends() -> None:
    """Trap: deleted by the old lease."""
    store = leased()
    store.do(Delete("a"))
    store.do(Set("a", b"another's"))
    assert store.do(RevokeLease(1)) == (0, None)
    assert store.value("a") == b"another's"


def test_a_key_goes_with_the_lease_that_it_came_to_last() -> None:
    store = leased()
    store.do(GrantLease(5000))
    store.do(Set("a", b"2", lease=4))
    assert store.do(RevokeLease(1)) == (0, None)
    assert store.value("a") == b"2"
    assert store.do(RevokeLease(4)) == (1, 6)


def test_a_lease_has_so_many_keys_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LEASE_KEYS_MAX", 3)
    store = leased()
    store.do(SetMany([("c", b""), ("d", b"")], lease=1))
    for op in (Set("e", b"", lease=1), SetMany([("e", b""), ("a", b"")], lease=1)):
        assert refused(store.do(op), 3007, lease_keys_max=3)
    assert store.do(Set("a", b"", lease=1)) == (5, None)
    assert store.do(SetMany([("d", b""), ("c", b""), ("a", b""), ("a", b"")], lease=1)) == (6,)
    many: list[OfOneKey] = [Delete("a"), Set("e", b"", lease=1), Set("f", b"", lease=1)]
    assert refused(store.do(Transact([], many)), 3007, lease_keys_max=3, branch="then", operation=1)
    assert keys_of(store) == {"a", "c", "d"}


def test_the_keys_of_a_lease_that_a_transact_brings_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LEASE_KEYS_MAX", 2)
    store = leased()
    two: list[OfOneKey] = [Set("c", b"", lease=1), Set("c", b"2", lease=1), Set("d", b"", lease=1)]
    assert refused(store.do(Transact([], two)), 3007, lease_keys_max=2, branch="then", operation=2)
    assert store.do(Transact([], two[:2])) == (True, 4, ((4, None), (4, None)))


@pytest.mark.parametrize("everything", [False, True])
def test_a_lease_of_many_keys_ends_in_slices_and_whole_for_every_reader(everything: bool) -> None:
    store = Store()
    store.do(GrantLease(5000))
    count = limits.SLICE_WORK_MAX
    store.do(SetMany([(f"k{number:05}", b"") for number in range(count)], lease=1))
    store.do(Set("other", b""))
    op = Clear() if everything else RevokeLease(1)
    steps = store.steps(store.index + 1, store.now_ms, [Logged(op)])
    seen = set()
    results: list[Result] = []
    slices = 0
    while True:
        try:
            assert next(steps) <= 2 * limits.SLICE_WORK_MAX
        except StopIteration as end:
            results = end.value
            break
        slices += 1
        seen.add(sum(not isinstance(store.ask(Get(key)), Failure) for key in ("k00000", f"k{count - 1:05}")))
    assert slices > 3
    assert seen <= {0, 2}
    assert everything or 2 in seen
    assert results == [(count + everything, 4)]
    store.check()
    assert store.leases.attached == 0
    assert not store.leases.fences.counts()
    assert list(store.leases.by_id) == ([1] if everything else [])


def test_the_keys_of_many_leases_that_end_together_are_taken_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_commands, "_KEYS_TAKEN", 8)
    store = Store()
    leases = [store.do(GrantLease(1000))[0] for _ in range(10)]  # type: ignore[index]  # it is granted
    for lease in leases:
        store.do(SetMany([(f"{lease} {number}", b"") for number in range(4)], lease=lease))
    steps = store.steps(store.index + 1, store.now_ms, [Logged(EndLeases(leases))])
    left = [len(leases), *(len(store.leases.by_id) for _ in steps)]
    assert min(after - before for before, after in itertools.pairwise(left)) == -2
    assert (left[-1], len(store.kv.entries)) == (0, 0)
    store.check()


def test_the_reads_of_leases() -> None:
    store = leased()
    store.do(GrantLease(2000))
    assert store.ask(RenewLease([4, 3, 1])) == ((2000, None, 5000),)
    assert store.ask(ListLeases()) == (((1, 5000, 5000, 1), (4, 2000, 2000, 0)), False)
    assert store.ask(ListLeases(limit=1)) == (((1, 5000, 5000, 1),), True)
    assert store.ask(ListLeases(after=1)) == (((4, 2000, 2000, 0),), False)
    assert store.ask(ListLeases(limit=0)) == ((), True)
    assert store.ask(ListLeases(after=4)) == ((), False)


def test_a_list_of_leases_is_bounded() -> None:
    store = Store()
    for _ in range(limits.LEASES_LISTED_MAX + 1):
        store.apply(store.index + 1, store.now_ms, [Logged(GrantLease(1000))])
    for op in (ListLeases(), ListLeases(limit=2000)):
        result = store.ask(op)
        assert isinstance(result, tuple)
        assert (len(result[0]), result[1]) == (limits.LEASES_LISTED_MAX, True)


@pytest.mark.parametrize(
    ("compare", "holds"),
    [
        (Compare("a", "lease", "=", 1), True),
        (Compare("a", "lease", "!=", 1), False),
        (Compare("b", "lease", "=", 0), True),
        (Compare("b", "lease", "!=", 1), True),
        (Compare("no", "lease", "=", 0), True),
    ],
)
def test_a_compare_of_a_lease(compare: Compare, holds: bool) -> None:
    assert leased().do(Transact([compare], [])) == (holds, None, ())


FENCED: list[Write] = [
    Set("b", b"2", fence=2),
    SetMany([("b", b"2")], fence=2),
    Delete("b", fence=2),
    DeleteMany(["b"], fence=2),
    Increment("b", fence=2),
    Rename("b", "c", fence=2),
    GetAndDelete("b", fence=2),
    GetAndExpire("b", persist=True, fence=2),
    Expire("b", None, fence=2),
    Clear("b", fence=2),
    Transact([], [Set("b", b"2")], fence=2),
]


@pytest.mark.parametrize("op", FENCED)
@pytest.mark.parametrize(
    "end",
    [
        RevokeLease(1),
        EndLeases([1]),
        Delete("a"),
        Set("a", b"1"),
        Set("a", b"1", lease=1),
        Increment("a"),
        Rename("a", "z"),
        Expire("a", None),
        Clear("a"),
        DeleteMany(["a"]),
    ],
)
def test_a_token_is_good_until_its_entry_is_gone_or_written_again(op: Write, end: Write) -> None:
    assert not isinstance(leased().do(op), Failure)
    store = leased()
    store.do(end)
    revision = store.revision
    assert refused(store.do(op), 4011, token=2)
    assert store.known(Logged(op)) == store.do(op)
    assert (store.value("b"), store.revision) == (b"1", revision)


def test_the_version_of_an_entry_without_a_lease_is_no_token() -> None:
    store = leased()
    assert refused(store.do(Set("c", b"", fence=3)), 4011, token=3)
    assert refused(store.do(Set("c", b"", fence=1)), 4011, token=1)


def test_a_fence_is_judged_before_all_else() -> None:
    store = leased()
    for op in (
        Set("a", b"", if_version=9, lease=7, fence=9),
        Delete("no", fence=9),
        Increment("b", 2**63 - 1, fence=9),
        SetMany([], fence=9),
        Transact([Compare("a", "exists", "=", False)], [], [Rename("no", "a")], fence=9),
    ):
        assert refused(store.do(op), 4011, token=9)


def test_keys_that_came_to_a_lease_together_have_one_token_until_the_last_of_them_is_gone() -> None:
    store = Store()
    store.do(GrantLease(5000))
    store.do(SetMany([("a", b""), ("b", b"")], lease=1))
    store.do(Delete("a"))
    assert not isinstance(store.do(Set("x", b"", fence=2)), Failure)
    store.do(Delete("b"))
    assert refused(store.do(Set("x", b"", fence=2)), 4011, token=2)


def test_the_answer_to_a_fenced_change_is_repeated_although_the_token_has_ended() -> None:
    store = leased()
    op = Set("b", b"2", fence=2)
    assert store.do(op, "u", ID, DIGEST) == (4, None)
    store.do(RevokeLease(1))
    assert store.do(op, "u", ID, DIGEST) == Replayed((4, None))


def test_a_refusal_of_a_fence_is_repeated_to_the_other_copy_of_the_change() -> None:
    store = leased()
    op = Set("c", b"2", fence=5)
    result = store.do(op, "u", ID, DIGEST, resent=True)
    assert refused(result, 4011, token=5)
    store.do(Set("a", b"", lease=1))
    store.do(Set("a", b"", lease=1))
    assert store.leases.fenced(5) is None
    assert store.do(op, "u", ID, DIGEST, resent=True) == Replayed(cast("Failure", result))


def test_a_fence_does_not_let_a_change_of_its_own_token_pass_twice() -> None:
    """Of two writes in one entry the second is judged behind the first."""
    store = leased()
    results = store.apply(store.index + 1, store.now_ms, [Logged(Delete("a", fence=2)), Logged(Set("b", b"", fence=2))])
    assert results[0] == (True, 4, None)
    assert refused(results[1], 4011, token=2)


def test_the_digest_says_which_lease_a_key_belongs_to_and_not_the_order_in_which_keys_came() -> None:
    def after(*ops: Write) -> bytes:
        store = Store()
        for op in (GrantLease(5000), GrantLease(5000), *ops):
            store.do(op)
        return store.digest()

    assert after(Set("a", b"", lease=1)) != after(Set("a", b"", lease=2))
    assert after(Set("a", b"", lease=1)) != after(Set("a", b""))
    assert after(SetMany([("b", b""), ("a", b"")], lease=1)) == after(SetMany([("a", b""), ("b", b"")], lease=1))


def test_leases_count_as_memory() -> None:
    store = Store()
    sizes = [store.size]
    for op in (
        GrantLease(5000),
        Set("a", b"", lease=1),
        Set("a", b"", lease=1),
        Set("b", b""),
        Set("b", b"", lease=1),
        SetMany([("b", b""), ("c", b"")], lease=1),
        SetMany([("b", b"")]),
        Rename("a", "d"),
        Transact([], [Set("e", b"", lease=1), Set("d", b"")]),
    ):
        grows = store.growth(op)
        assert not isinstance(op, SetMany) or finish(store.growth_steps(op)) == grows
        store.do(op)
        sizes.append(store.size)
        assert sizes[-1] - sizes[-2] == grows
    store.do(RevokeLease(1))
    store.do(Clear())
    assert store.size == 0


def test_a_lease_ends_with_an_event_of_the_kind_of_an_expiry_and_a_delete_with_its_own() -> None:
    store = leased()
    store.do(Set("c", b"", lease=1))
    store.do(Delete("c"))
    store.do(RevokeLease(1))
    assert events_of(store)[-2:] == [(5, DELETE, "c"), (6, EXPIRE, "a")]
