"""The accounts of quotas against a recount from the events, and each refusal against a store with endless quotas."""

from __future__ import annotations

from typing import TYPE_CHECKING

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given, settings

from haptera.errors import Code, Failure
from haptera.state import Logged, StateMachine, event_history, table, validate
from haptera.state.access_operations import AddToken, AddUser, RemoveToken, RemoveUser, SetQuota, StoredVerifier
from haptera.state.event_history import CLEARED, PUT, Event
from haptera.state.operations import EndLeases, ExpireDue
from haptera.state.quotas import bytes_of
from haptera.state.snapshot_pieces import dump_pieces, load_pieces
from tests.property.test_state_model import keys, leases, without_fence

if TYPE_CHECKING:
    from collections.abc import Iterator

    from haptera.state import Result, Write

replace = msgspec.structs.replace

VERIFIER = StoredVerifier(b"s" * 16, 600_000, b"k" * 32, b"K" * 32)
ENDLESS = 2**52
PEOPLE = ("ann", "bob", "token:t", "token:u", "")


@pytest.fixture(autouse=True, scope="module")
def _tables_that_are_split_early() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "SPLIT_AT", 3)
        patch.setattr(event_history, "BLOCK_EVENTS", 2)
        yield


users = st.sampled_from(["ann", "bob"])
numbers = st.sampled_from([None, 0, 1, 2, 3])
sizes = st.sampled_from([None, 0, 3, 6, 30])
quotas = st.builds(SetQuota, users, numbers, sizes, numbers, numbers, st.none() | st.sampled_from(["", "a", "a/", "b"]))
changes: st.SearchStrategy[tuple[Write, str]] = st.one_of(
    st.tuples(without_fence, st.sampled_from(PEOPLE)),
    st.tuples(without_fence, st.sampled_from(PEOPLE)),
    st.tuples(without_fence, st.just("ann")),
    st.tuples(st.builds(ExpireDue, st.lists(keys, max_size=4)), st.just("")),
    st.tuples(st.builds(EndLeases, st.lists(leases, max_size=3)), st.just("")),
    st.tuples(quotas, st.just("")),
    st.tuples(users.map(RemoveUser), st.just("")),
    st.tuples(users.map(lambda user: AddUser(user, VERIFIER, [])), st.just("")),
    st.tuples(
        st.builds(
            AddToken,
            st.sampled_from(["token:t", "token:u"]),
            st.just(VERIFIER),
            st.just([]),
            st.none(),
            st.none() | users,
        ),
        st.just(""),
    ),
    st.tuples(st.sampled_from(["token:t", "token:u"]).map(RemoveToken), st.just("")),
)


class Owners:
    """Whom each key counts for, said again: by the users of the events."""

    def __init__(self) -> None:
        self.of_key: dict[str, str] = {}

    def follow(self, machine: StateMachine, op: Write, place: int) -> None:
        """Follow a command that was applied, with its events from a place on."""
        accounts = machine.kv.quotas.accounts
        events: list[Event] = []
        while place + len(events) < machine.kv.events.end:
            events += machine.kv.events.read(place + len(events), 1000)
        for _, kind, key, _, _, _, user in events:
            payer = machine.access.payer(user)
            if kind == CLEARED:
                self.of_key.clear()
            elif kind == PUT and payer in accounts:
                self.of_key[key] = payer
            else:
                self.of_key.pop(key, None)
        self.of_key = {key: user for key, user in self.of_key.items() if user in accounts}
        if isinstance(op, SetQuota) and op.user in accounts and op.claim is not None:
            for key in machine.kv.entries:
                if key.startswith(op.claim):
                    self.of_key.setdefault(key, op.user)

    def used(self, machine: StateMachine, user: str) -> tuple[int, int]:
        owned = [key for key, owner in self.of_key.items() if owner == user]
        return len(owned), sum(bytes_of(key, entry[0]) for key in owned if (entry := machine.kv.entries.get(key)))


def applied(machine: StateMachine, op: Write, user: str, now_ms: int) -> Result:
    [result] = machine.apply(machine.index + 1, now_ms, [Logged(op, user)])
    return result


def copied(machine: StateMachine) -> StateMachine:
    """The machine that a snapshot gives."""
    return load_pieces(dump_pieces(machine), index=machine.index, time_ms=machine.time_ms)


def endless(op: Write) -> Write:
    """The command, with numbers without end in the place of those of a quota."""
    if not isinstance(op, SetQuota) or (op.keys, op.size, op.watches, op.leases) == (None,) * 4:
        return op
    return replace(op, keys=ENDLESS, size=ENDLESS, watches=None, leases=ENDLESS)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(changes, st.sampled_from([0, 0, 1, 3])), max_size=30), st.data())
def test_the_accounts_are_those_of_a_recount_and_each_refusal_is_one_too_many(
    steps: list[tuple[tuple[Write, str], int]], data: st.DataObject
) -> None:
    machine, free = StateMachine(), StateMachine()
    for each in (machine, free):
        for user in ("ann", "bob"):
            applied(each, AddUser(user, VERIFIER, []), "", 1)
    owners, now_ms = Owners(), 1
    for (op, user), passed in steps:
        now_ms += passed
        if validate(op) is not None:
            continue
        place = machine.kv.events.end
        account = machine.kv.quotas.account_of(user)
        before = None if account is None else (account.keys, account.size, account.leases)
        known = machine.known(Logged(op, user))
        result = applied(machine, op, user, now_ms)
        if known is not None and passed == 0:
            assert known == result
        machine.check()
        owners.follow(machine, op, place)
        for name, each_account in machine.kv.quotas.accounts.items():
            assert (each_account.keys, each_account.size) == owners.used(machine, name)
        if isinstance(result, Failure) and result.code == Code.QUOTA_EXCEEDED:
            assert account is not None
            assert (account.keys, account.size, account.leases) == before
            _check_that_it_is_one_too_many(copied(free), op, user, now_ms, result)
            applied(free, AddUser("ann", VERIFIER, ["none"]), "", now_ms)  # an entry that changes nothing
        else:
            freely = applied(free, endless(op), user, now_ms)
            assert result == freely or isinstance(op, SetQuota)  # its numbers are others
            if account is not None and before is not None and account.user in machine.kv.quotas.accounts:
                _check_that_it_is_within(account, before, op)
        if data.draw(st.sampled_from([False] * 5 + [True]), "restart"):
            digest = machine.digest()
            machine = copied(machine)
            assert machine.digest() == digest
    assert {key: entry[0] for key, entry in machine.kv.entries.items()} == {
        key: entry[0] for key, entry in free.kv.entries.items()
    }


def _check_that_it_is_one_too_many(free: StateMachine, op: Write, user: str, now_ms: int, refused: Failure) -> None:
    """A store without an end takes the refused command, and then has more than the limit."""
    assert isinstance(applied(free, op, user, now_ms), tuple)
    account = free.kv.quotas.account_of(user)
    assert account is not None
    after = {"keys": account.keys, "bytes": account.size, "leases": account.leases}
    assert after[refused.details["quota"]] > max(refused.details["limit"], refused.details["used"])


def _check_that_it_is_within(account: object, before: tuple[int, int, int], op: Write) -> None:
    """A command that was made has left an account within its quota, or has made it no larger."""
    quota, after = account.quota, (account.keys, account.size, account.leases)  # type: ignore[attr-defined]
    if isinstance(op, SetQuota):
        return
    for most, was, now in zip((quota.keys, quota.size, quota.leases), before, after, strict=True):
        assert most is None or now <= max(most, was)
