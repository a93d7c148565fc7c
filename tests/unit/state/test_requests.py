"""At most once: section 7.1 of the protocol, decided at apply time, in log order."""

from __future__ import annotations

import pytest

from haptera.errors import Failure
from haptera.state import (
    Clear,
    Delete,
    Forget,
    Increment,
    Logged,
    Replayed,
    Set,
    StateMachine,
    limits,
)
from tests.unit.state.store import Store, refused

DIGEST = bytes(32)
OTHER_DIGEST = b"\x01" * 32


def request_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


ONE = request_id(1)


@pytest.fixture
def store() -> Store:
    return Store()


def test_a_retry_gets_the_remembered_result_and_changes_nothing(store: Store) -> None:
    op = Increment("n", 1)
    assert store.do(op, "app", ONE, DIGEST) == (1, 1)
    assert store.do(op, "app", ONE, DIGEST) == Replayed((1, 1))
    assert store.do(op, "app", ONE, DIGEST) == Replayed((1, 1))
    assert (store.value("n"), store.revision) == (b"1", 1)


def test_a_retry_in_the_same_entry_is_answered_once(store: Store) -> None:
    logged = Logged(Increment("n"), "app", ONE, DIGEST)
    assert store.apply(1, 0, [logged, logged]) == [(1, 1), Replayed((1, 1))]


def test_a_result_that_changed_nothing_is_remembered_too(store: Store) -> None:
    assert store.do(Delete("a"), "app", ONE, DIGEST) == (False, None, None)
    store.do(Set("a", b""))
    assert store.do(Delete("a"), "app", ONE, DIGEST) == Replayed((False, None, None))


def test_the_same_id_for_another_request_is_3012(store: Store) -> None:
    store.do(Increment("n"), "app", ONE, DIGEST)
    assert refused(store.do(Increment("n"), "app", ONE, OTHER_DIGEST), 3012)
    assert store.revision == 1


def test_ids_of_different_users_are_different(store: Store) -> None:
    assert store.do(Increment("n"), "a", ONE, DIGEST) == (1, 1)
    assert store.do(Increment("n"), "b", ONE, OTHER_DIGEST) == (2, 2)


def test_a_failure_is_not_remembered_and_is_judged_again(store: Store) -> None:
    op = Set("a", b"1", condition="present")
    assert refused(store.do(op, "app", ONE, DIGEST), 4001, key="a")
    store.do(Set("a", b"0"))
    assert store.do(op, "app", ONE, DIGEST) == (2, None)
    assert store.do(op, "app", ONE, DIGEST) == Replayed((2, None))


def test_a_command_without_an_id_is_applied_each_time(store: Store) -> None:
    assert [store.do(Increment("n"), "app") for _ in range(3)] == [(1, 1), (2, 2), (3, 3)]
    assert len(store.requests) == 0


def test_an_answer_is_kept_for_600_000_ms_of_entry_time(store: Store) -> None:
    op = Increment("n")
    assert limits.ANSWER_KEPT_MS == 600_000
    store.do(op, "app", ONE, DIGEST)
    store.now_ms += 600_000
    assert store.do(op, "app", ONE, DIGEST) == Replayed((1, 1))
    store.now_ms += 1
    assert store.do(op, "app", ONE, DIGEST) == (2, 2)


def test_a_replayed_answer_does_not_live_longer(store: Store) -> None:
    op = Increment("n")
    store.do(op, "app", ONE, DIGEST)
    store.now_ms += 400_000
    assert store.do(op, "app", ONE, DIGEST) == Replayed((1, 1))
    store.now_ms += 400_000
    assert store.do(op, "app", ONE, DIGEST) == (2, 2)


def test_entry_time_that_goes_back_forgets_nothing_and_keeps_the_order(store: Store) -> None:
    store.do(Increment("n"), "app", request_id(1), DIGEST)
    store.now_ms -= 500_000
    store.do(Increment("n"), "app", request_id(2), DIGEST)
    assert store.time_ms == 1_000_000
    store.now_ms = 1_600_000
    assert store.do(Increment("n"), "app", request_id(2), DIGEST) == Replayed((2, 2))


def test_an_answer_over_4_kib_is_not_kept_and_its_retry_says_that_it_was_applied(store: Store) -> None:
    store.do(Set("a", bytes(5000)))
    op = Set("a", b"", return_previous=True)
    assert store.do(op, "app", ONE, DIGEST) == (2, (bytes(5000), 1, None))
    store.do(Set("b", b""))
    retry = store.do(op, "app", ONE, DIGEST)
    assert isinstance(retry, Failure)
    assert (retry.code, retry.outcome, retry.details) == (3011, "applied", {"version": 2})
    assert refused(store.do(op, "app", ONE, OTHER_DIGEST), 3012)


@pytest.mark.parametrize(("size", "kept"), [(4087, True), (4088, False)])
def test_4_kib_is_the_size_of_the_encoded_answer(store: Store, size: int, kept: bool) -> None:
    store.do(Set("a", bytes(size)))
    op = Delete("a", return_previous=True)  # [true, 2, [value, 1, nil]]: 9 bytes around the value
    answer = store.do(op, "app", ONE, DIGEST)
    retry = store.do(op, "app", ONE, DIGEST)
    assert (retry == Replayed(answer)) if kept else isinstance(retry, Failure)  # type: ignore[arg-type]


def test_forget_drops_the_answers_of_that_user_alone(store: Store) -> None:
    for user in ("a", "b"):
        for number in (1, 2):
            store.do(Increment("n"), user, request_id(number), DIGEST)
    assert store.do(Forget("a", [request_id(1), request_id(9), request_id(1)])) == (1,)
    assert store.do(Increment("n"), "a", request_id(1), OTHER_DIGEST) == (5, 5)
    assert store.do(Increment("n"), "a", request_id(2), DIGEST) == Replayed((2, 2))
    assert store.do(Increment("n"), "b", request_id(1), DIGEST) == Replayed((3, 3))
    assert store.revision == 5


def test_a_full_table_refuses_new_requests_answers_old_ones_and_evicts_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert limits.ANSWERS_PER_USER_MAX == 100_000
    monkeypatch.setattr(limits, "ANSWERS_PER_USER_MAX", 3)
    op = Increment("n")
    for number in range(3):
        store.do(op, "app", request_id(number), DIGEST)
    assert refused(store.do(op, "app", request_id(9), DIGEST), 3008, remembered_requests_max=3)
    assert store.revision == 3
    assert store.do(op, "app", request_id(0), DIGEST) == Replayed((1, 1))
    assert refused(store.do(op, "app", request_id(0), OTHER_DIGEST), 3012)
    assert store.do(op, "other", request_id(9), DIGEST) == (4, 4)
    assert store.do(op, "app") == (5, 5)
    store.do(Forget("app", [request_id(1)]))
    assert store.do(op, "app", request_id(9), DIGEST) == (6, 6)
    store.now_ms += 600_001
    assert store.do(op, "app", request_id(10), DIGEST) == (7, 7)
    assert store.requests.count("app") == 1


def test_forgotten_answers_leave_nothing_behind(store: Store) -> None:
    for number in range(1000):
        store.do(Clear(), "app", request_id(number), DIGEST)
        store.do(Forget("app", [request_id(number)]))
    assert len(store.requests) == 0
    assert store.requests.count("app") == 0


def test_a_retry_after_a_replay_of_the_log_is_answered_as_before() -> None:
    entries = [[Logged(Increment("n"), "app", request_id(number), DIGEST)] for number in range(3)]
    first, second = StateMachine(), StateMachine()
    for machine in (first, second):
        for index, commands in enumerate(entries, 1):
            machine.apply(index, index, commands)
    assert first.digest() == second.digest()
    assert second.apply(4, 4, entries[0]) == [Replayed((1, 1))]
