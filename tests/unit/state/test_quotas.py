"""Quotas of users: what counts for one, what is refused, and what gives back (storage-format, section 12.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from haptera.errors import Failure
from haptera.state import Logged, decode_commands, encode_commands, limits, quotas
from haptera.state.access_operations import (
    AddGrant,
    AddRole,
    AddToken,
    AddUser,
    FindQuota,
    RemoveToken,
    RemoveUser,
    SetQuota,
    StoredVerifier,
)
from haptera.state.operations import (
    Clear,
    Compare,
    Delete,
    DeleteMany,
    EndLeases,
    Expire,
    ExpireDue,
    GetAndDelete,
    GetAndExpire,
    GrantLease,
    Increment,
    Rename,
    RevokeLease,
    Set,
    SetMany,
    Transact,
)
from haptera.state.quotas import exceeded
from haptera.state.snapshot_pieces import dump_pieces, load_pieces
from tests.unit.state.store import Store, refused

if TYPE_CHECKING:
    from haptera.state import Result, Write
    from haptera.state.sliced_work import Steps

VERIFIER = StoredVerifier(b"s" * 16, 600_000, b"k" * 32, b"K" * 32)
MADE, NOTHING_TO_DO = (True,), (False,)


def store(**quota: Any) -> Store:
    """A store with the users `ann`, who has this quota, and `bob`, who has none."""
    made = Store()
    for user, roles in (("root", ["admin"]), ("ann", []), ("bob", [])):
        assert made.do(AddUser(user, VERIFIER, roles)) == MADE
    assert made.do(SetQuota("ann", **quota)) == (MADE if quota else NOTHING_TO_DO)
    return made


def used(db: Store, user: str = "ann") -> tuple[int, int]:
    """The keys and the bytes that count for a user."""
    account = db.kv.quotas.accounts[user]
    return (account.keys, account.size)


def test_a_key_counts_with_its_bytes_for_the_user_who_wrote_it_last() -> None:
    db = store(keys=9)
    db.do(Set("a", b"123"), "ann")
    db.do(Set("é", b""), "ann")
    assert used(db) == (2, 1 + 3 + 2)
    db.do(Set("a", b"12345"), "ann")
    assert used(db) == (2, 1 + 5 + 2)
    db.do(Expire("a", 1000), "bob")
    assert used(db) == (1, 2)
    db.do(Increment("n", 41), "ann")
    db.do(Rename("a", "b"), "ann")
    assert used(db) == (3, 2 + 3 + 6)
    assert db.do(Delete("n"), "bob") == (True, db.revision, None)
    assert used(db) == (2, 8)


def test_each_way_to_end_a_key_gives_back() -> None:
    db = store(keys=99)
    lease, _ = db.do(GrantLease(1000), "ann")  # type: ignore[misc]  # it is granted
    db.do(SetMany([(f"k{number}", b"v") for number in range(8)]), "ann")
    db.do(Set("leased", b"", lease=lease), "ann")
    db.do(Set("dead", b"", ttl_ms=1), "ann")
    count = 10
    for op in (
        Delete("k0"),
        GetAndDelete("k1"),
        DeleteMany(["k2", "k2"]),
        Transact([], [Delete("k3")]),
        RevokeLease(lease),
    ):
        db.do(op, "bob")
        count -= 1
        assert used(db)[0] == count, op
    db.now_ms += 5
    db.do(ExpireDue(["dead"]))
    assert used(db)[0] == count - 1
    db.do(Clear("k4"), "bob")
    assert used(db) == (3, 9)
    db.do(Clear(None), "bob")
    assert used(db) == (0, 0)


@pytest.mark.parametrize(
    "op",
    [
        Set("new", b""),
        Set("new", b"", ttl_ms=5),
        SetMany([("new", b"")]),
        SetMany([("a", b"1"), ("b", b""), ("new", b"")]),
        Increment("new"),
        Rename("bobs", "new"),
        Rename("bobs", "bobs"),
        Set("bobs", b""),
        Expire("bobs", 5),
        GetAndExpire("bobs", persist=True),
        Transact([], [Set("new", b"")]),
        Transact([Compare("new", "exists", "=", True)], [], [Set("new", b"")]),
        Transact([], [Delete("a"), Set("new", b""), Set("newer", b"")]),
        Transact([], [Set("new", b""), Rename("new", "newer")]),
    ],
    ids=repr,
)
def test_no_change_brings_a_user_above_its_keys(op: Write) -> None:
    db = store(keys=2)
    db.do(Set("bobs", b"1"), "bob")
    db.do(SetMany([("a", b"1"), ("b", b"2")]), "ann")
    before, revision = used(db), db.revision
    assert refused(db.do(op, "ann"), 3013, quota="keys", limit=2, used=2)
    assert (used(db), db.revision) == (before, revision)
    assert refused(db.known(Logged(op, "ann")), 3013, quota="keys", limit=2, used=2)
    assert isinstance(db.do(op, "bob"), tuple)


@pytest.mark.parametrize(
    "op",
    [
        Set("a", b"123456"),
        Set("a", b"12345678901", if_version=None, condition="present"),
        SetMany([("a", b"12345678901")]),
        SetMany([("a", b""), ("new", b"12345678"), ("a", b"1")]),
        Rename("a", "a longer name"),
        Rename("é", "éé"),
        Transact([], [Set("a", b""), Set("a", b"12345678901")]),
    ],
    ids=repr,
)
def test_no_change_brings_a_user_above_its_bytes(op: Write) -> None:
    db = store(size=10)
    assert db.do(SetMany([("a", b"12345"), ("é", b"12")]), "ann") == (1,)
    assert used(db) == (2, 10)
    assert refused(db.do(op, "ann"), 3013, quota="bytes", limit=10, used=10)
    assert used(db) == (2, 10)


@pytest.mark.parametrize(
    "op",
    [
        Set("a", b"11111"),
        Set("a", b""),
        SetMany([("b", b"x"), ("b", b"1")]),
        Rename("a", "b"),
        Rename("a", "c"),
        Expire("a", 5),
        Delete("a"),
        GetAndDelete("b"),
        Transact([], [Delete("a"), Set("c", b"11111")]),
        Transact([], [Set("c", b"1"), Delete("c")]),
        Set("a", b"", condition="absent"),
        Rename("missing", "c"),
        Clear("a"),
        GrantLease(1000),
    ],
    ids=repr,
)
def test_a_change_that_adds_nothing_passes_a_quota_that_is_used_up(op: Write) -> None:
    db = store(keys=2, size=8)
    db.do(SetMany([("a", b"11111"), ("b", b"1")]), "ann")
    assert used(db) == (2, 8)
    result = db.do(op, "ann")
    assert isinstance(result, tuple) or result.code in {4001, 4003}  # type: ignore[union-attr]  # no other is a failure
    assert used(db)[0] <= 2
    assert used(db)[1] <= 8


def test_a_key_that_a_set_many_has_twice_counts_once_with_its_last_value() -> None:
    db = store(keys=2, size=4)
    items = [("a", b"a value that does not stay"), ("b", b"1"), ("a", b"2")]
    assert db.do(SetMany(items), "ann") == (1,)
    assert used(db) == (2, 4)


def test_a_quota_below_the_keys_that_count_takes_none_away_and_lets_no_more_come() -> None:
    db = store(keys=9)
    db.do(SetMany([(f"k{number}", b"v") for number in range(4)]), "ann")
    assert db.do(SetQuota("ann", keys=2)) == MADE
    assert db.do(SetQuota("ann", keys=2)) == NOTHING_TO_DO
    assert used(db)[0] == 4
    assert refused(db.do(Set("new", b""), "ann"), 3013, quota="keys", limit=2, used=4)
    assert db.do(Set("k0", b"another"), "ann") == (db.revision, None)
    assert db.do(Transact([], [Delete("k1"), Delete("k2"), Set("new", b"")]), "ann")[0] is True  # type: ignore[index]
    assert used(db)[0] == 3


def test_a_dead_key_counts_until_it_is_removed_and_may_be_replaced_by_its_user() -> None:
    db = store(keys=1)
    db.do(Set("a", b"1", ttl_ms=1), "ann")
    db.now_ms += 5
    assert db.do(Set("a", b"2"), "ann") == (db.revision, None)
    assert used(db) == (1, 2)
    db.do(Set("a", b"2", ttl_ms=1), "ann")
    db.now_ms += 5
    assert db.do(Transact([], [Set("a", b"3")]), "ann")[0] is True  # type: ignore[index]  # it succeeds
    assert db.do(SetMany([("a", b"4")]), "ann") == (db.revision,)
    assert used(db) == (1, 2)


def test_a_token_counts_for_the_user_who_makes_it() -> None:
    db = store(keys=1)
    db.do(AddRole("users", []))
    db.do(AddGrant("users", ["user_admin"], "*"))
    db.do(AddUser("eve", VERIFIER, ["users"]))
    db.do(SetQuota("eve", keys=1, leases=1))
    assert db.do(AddToken("token:t", VERIFIER, []), "eve") == MADE
    assert db.do(AddToken("token:u", VERIFIER, ["users"]), "eve") == MADE
    assert db.do(AddToken("token:v", VERIFIER, []), "token:u") == MADE
    db.do(Set("a", b""), "token:t")
    db.do(GrantLease(1000), "token:v")
    assert used(db, "eve") == (1, 1)
    for user in ("eve", "token:t", "token:u", "token:v"):
        assert refused(db.do(Set("b", b""), user), 3013, quota="keys", limit=1, used=1)
        assert refused(db.do(GrantLease(1000), user), 3013, quota="leases", limit=1, used=1)
    db.do(RemoveToken("token:t"))
    assert used(db, "eve") == (1, 1), "what a token has written stays its user's"


def test_a_token_counts_for_the_user_that_an_administrator_names() -> None:
    db = store(keys=1)
    assert db.do(AddToken("token:t", VERIFIER, [], quota_of="ann"), "root") == MADE
    assert db.do(AddToken("token:free", VERIFIER, []), "root") == MADE
    assert refused(db.do(AddToken("token:x", VERIFIER, [], quota_of="none"), "root"), 2008, user="none")
    db.do(Set("a", b""), "token:t")
    assert refused(db.do(Set("b", b""), "token:t"), 3013, quota="keys", limit=1, used=1)
    assert isinstance(db.do(Set("b", b""), "token:free"), tuple)


def test_only_an_administrator_says_how_much_a_user_may_have_and_for_whom_a_token_counts() -> None:
    db = store(keys=1)
    db.do(AddRole("users", []))
    db.do(AddGrant("users", ["user_admin"], "*"))
    for user in ("eve", "mallory"):
        db.do(AddUser(user, VERIFIER, ["users"]))
    db.do(SetQuota("eve", keys=1))
    for op in (
        SetQuota("eve"),
        SetQuota("eve", keys=9),
        SetQuota("ann", keys=0),
        AddToken("token:t", VERIFIER, [], quota_of="ann"),
        AddToken("token:t", VERIFIER, [], quota_of="mallory"),
    ):
        assert refused(db.do(op, "eve"), 2004, permission="admin"), op
        assert refused(db.known(Logged(op, "eve")), 2004, permission="admin"), op
    assert db.do(AddToken("token:t", VERIFIER, [], quota_of="eve"), "eve") == MADE
    db.do(AddGrant("users", ["admin"], "*"))
    assert db.do(SetQuota("ann", keys=5), "mallory") == MADE


def test_a_change_that_would_fail_for_another_reason_fails_for_that() -> None:
    db = store(keys=0)
    db.do(Set("a", b"text"), "bob")
    for op, code in (
        (SetMany([("new", b"")], lease=7), 4010),
        (Set("new", b"", lease=7), 4010),
        (Set("new", b"", if_version=3), 4002),
        (Set("a", b"", condition="absent"), 4003),
        (Increment("a"), 4004),
        (Rename("missing", "new"), 4001),
        (Transact([], [Set("new", b""), Increment("a")]), 4004),
        (Set("new", b"", fence=99), 4011),
    ):
        for result in (db.known(Logged(op, "ann")), db.do(op, "ann")):
            assert isinstance(result, Failure)
            assert result.code == code, op


def test_leases_count_until_they_end() -> None:
    db = store(leases=2)
    first, _ = db.do(GrantLease(1000), "ann")  # type: ignore[misc]  # it is granted
    second, _ = db.do(GrantLease(1000), "ann")  # type: ignore[misc]  # it is granted
    assert refused(db.do(GrantLease(1000), "ann"), 3013, quota="leases", limit=2, used=2)
    assert refused(db.known(Logged(GrantLease(1000), "ann")), 3013, quota="leases", limit=2, used=2)
    db.do(GrantLease(1000), "bob")
    db.do(RevokeLease(first), "ann")
    db.do(EndLeases([second]))
    assert db.kv.quotas.accounts["ann"].leases == 0
    for _ in range(2):
        db.do(GrantLease(1000), "ann")
    assert refused(db.do(GrantLease(1000), "ann"), 3013, quota="leases", limit=2, used=2)


def test_a_first_quota_counts_the_leases_of_before_and_the_keys_that_it_claims() -> None:
    db = store()
    db.do(SetMany([(f"app/{number}", b"v") for number in range(5)]), "ann")
    db.do(SetMany([("app/bob", b""), ("other", b"")]), "bob")
    db.do(GrantLease(1000), "ann")
    db.do(GrantLease(1000), "bob")
    assert db.do(SetQuota("bob", keys=9, claim="app/b")) == MADE
    assert db.do(SetQuota("ann", keys=9)) == MADE
    assert (used(db), db.kv.quotas.accounts["ann"].leases) == ((0, 0), 1)
    db.do(Set("app/0", b"v"), "ann")
    assert db.do(SetQuota("ann", keys=9, claim="app/")) == MADE
    assert used(db) == (5, 5 * 6), "a key of another account stays there"
    assert used(db, "bob") == (1, 7)
    db.do(Delete("app/3"), "bob")
    assert used(db) == (4, 4 * 6)


def test_a_first_quota_leaves_a_lease_to_the_user_for_whom_it_counts_already() -> None:
    db = store()
    db.do(SetQuota("bob", leases=5))
    db.do(AddToken("token:t", VERIFIER, [], quota_of="bob"), "root")
    db.do(GrantLease(1000), "token:t")
    db.do(RemoveToken("token:t"))
    db.do(AddToken("token:t", VERIFIER, [], quota_of="ann"), "root")
    db.do(SetQuota("ann", leases=5))
    accounts = db.kv.quotas.accounts
    assert (accounts["ann"].leases, accounts["bob"].leases) == (0, 1)
    db.do(GrantLease(1000), "token:t")
    assert (accounts["ann"].leases, accounts["bob"].leases) == (1, 1)


def test_a_quota_goes_by_a_word_or_with_its_user_and_others_keep_theirs() -> None:
    db = store()
    for op in (SetQuota("ann"), RemoveUser("ann")):
        db = store(keys=3, leases=1)
        db.do(SetQuota("bob", keys=3))
        db.do(SetMany([("a", b""), ("b", b"")]), "ann")
        db.do(Set("c", b""), "bob")
        db.do(GrantLease(1000), "ann")
        assert db.known(Logged(op)) is None
        assert db.do(op) == MADE
        assert list(db.kv.quotas.accounts) == ["bob"]
        assert used(db, "bob") == (1, 1)
        assert isinstance(db.do(SetMany([(f"k{number}", b"") for number in range(9)]), "ann"), tuple)
        assert db.do(SetQuota("bob")) == MADE
        assert (len(db.kv.quotas.owned), db.kv.quotas.size) == (0, 0)
        assert db.do(SetQuota("bob")) == NOTHING_TO_DO
    db.do(AddUser("ann", VERIFIER, []))
    assert db.ask(FindQuota("ann")) == (None, None)


def test_a_quota_is_told_with_what_counts_for_it() -> None:
    db = store(keys=3, size=100, watches=7)
    db.kv.quotas.watches_of = {"ann": 4}.__getitem__
    db.do(Set("a", b"12"), "ann")
    assert db.ask(FindQuota("ann")) == ((3, 100, 7, None), (1, 3, 4, 0))
    assert db.ask(FindQuota("bob")) == (None, None)
    assert refused(db.ask(FindQuota("none")), 2008, user="none")
    for op in (SetQuota("none", keys=1), SetQuota("none")):
        assert refused(db.do(op), 2008, user="none")
        assert refused(db.known(Logged(op)), 2008, user="none")


def test_a_quota_of_nothing_lets_nothing_come() -> None:
    db = store(keys=0, leases=0)
    assert refused(db.do(Set("a", b""), "ann"), 3013, quota="keys", limit=0, used=0)
    assert refused(db.do(GrantLease(1000), "ann"), 3013, quota="leases", limit=0, used=0)


def test_commands_of_one_entry_are_judged_one_after_the_other() -> None:
    db = store(keys=2)
    writes = [Logged(Set(f"k{number}", b""), user) for number in range(3) for user in ("ann", "bob")]
    writes[1:1] = [Logged(SetQuota("bob", keys=1), "root")]
    results = db.apply(db.index + 1, db.now_ms, writes)
    assert [isinstance(result, tuple) for result in results] == [True, True, True, True, False, True, False]
    db.check()


def test_a_refusal_is_remembered_for_the_other_copy_of_a_change() -> None:
    db = store(keys=0)
    answer = db.do(Set("a", b""), "ann", b"i" * 16, b"d" * 32, resent=True)
    db.do(SetQuota("ann"))
    again = db.do(Set("a", b""), "ann", b"i" * 16, b"d" * 32)
    assert again.result == answer  # type: ignore[union-attr]  # it is replayed


def test_quotas_are_in_the_log_and_in_snapshots() -> None:
    db = store(keys=5, size=1000)
    db.do(SetQuota("bob", watches=2, leases=4))
    db.do(AddToken("token:t", VERIFIER, [], quota_of="ann"), "root")
    db.do(SetMany([("a", b"1"), ("b", b"2")]), "token:t")
    db.do(Set("c", b"1"), "bob")
    db.do(GrantLease(1000), "bob")
    again = load_pieces(dump_pieces(db), index=db.index, time_ms=db.time_ms)
    again.check()
    assert again.digest() == db.digest()
    refusals = [
        each.apply(each.index + 1, 1, [Logged(SetMany([(k, b"") for k in "wxyz"]), "token:t")]) for each in (db, again)
    ]
    assert refusals[0] == refusals[1]
    assert refused(refusals[0][0], 3013, quota="keys", limit=5, used=2)
    db.do(SetQuota("ann", keys=6, size=1000))
    again.apply(db.index, db.now_ms, [])
    assert again.digest() != db.digest()
    op = SetQuota("ann", 1, 2, 3, 4, "app/")
    assert decode_commands(encode_commands([Logged(op, "root")])) == [Logged(op, "root")]


def test_a_large_claim_a_removal_and_a_clear_are_made_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SLICE_WORK_MAX", 64)
    monkeypatch.setattr(limits, "SWEEP_MAX", 16)
    db = store()
    db.do(SetMany([(f"app/{number}", b"v") for number in range(500)]), "bob")
    for op, most in ((SetQuota("ann", keys=9999, claim=""), 80), (SetQuota("ann"), 120)):
        steps = db.steps(db.index + 1, db.now_ms, [Logged(op)])
        work = list(_taken(steps, [MADE]))
        assert len(work) > 20
        assert max(work) <= most
    db.do(SetQuota("ann", keys=9999, claim=""))
    assert used(db)[0] == 500
    slices = sum(1 for _ in db.kv.quotas.clear_keys())
    assert slices > 20


def test_the_size_of_a_store_has_the_places_of_the_keys_that_count() -> None:
    db, other = store(keys=9), store()
    for each in (db, other):
        each.do(SetMany([("a", b""), ("b", b"")]), "ann")
    assert db.size - other.size == 2 * quotas.OWNED_SIZE


def test_a_long_set_many_is_judged_in_slices_and_as_a_whole() -> None:
    db = store(keys=9_999)
    items = [(f"k{number % 10_000}", b"v") for number in range(20_000)]
    assert db.known(Logged(SetMany(items), "ann")) is None
    steps = db.steps(db.index + 1, db.now_ms, [Logged(SetMany(items), "ann")])
    assert len(list(_taken(steps, [exceeded("keys", 9_999, 0)]))) > 5
    assert used(db) == (0, 0)
    assert db.do(SetMany(items[:9_999]), "ann") == (1,)
    assert used(db)[0] == 9_999


def _taken(steps: Steps[list[Result]], results: list[Result]) -> Steps[None]:
    """The slices of an entry, which has these results at its end."""
    assert (yield from steps) == results
