"""At most once: section 7.1 of the protocol, decided at apply time, in log order."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from haptera.errors import Failure
from haptera.state import Logged, Replayed, StateMachine, limits
from haptera.state.operations import Clear, Delete, Forget, GetAndDelete, GetAndExpire, Increment, Set, Write
from haptera.state.requests import Requests
from tests.unit.state.store import Store, refused

if TYPE_CHECKING:
    from collections.abc import Iterator

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


@pytest.mark.parametrize(
    "op",
    [GetAndDelete("a"), GetAndExpire("a", ttl_ms=1000), Set("a", b"", return_previous=True)],
    ids=["get_and_delete", "get_and_expire", "set"],
)
def test_every_answer_with_a_large_value_is_charged(store: Store, op: Write) -> None:
    store.do(Set("a", bytes(limits.ANSWER_SMALL_SIZE + 1)))
    store.do(op, "app", ONE, DIGEST)
    assert store.requests.size > limits.ANSWER_SMALL_SIZE
    store.check()


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


def test_an_answer_is_kept_for_600_000_ms(store: Store) -> None:
    op = Increment("n")
    assert limits.ANSWER_KEPT_MS == 600_000
    store.do(op, "app", ONE, DIGEST)
    store.wait(600_000)
    assert store.do(op, "app", ONE, DIGEST) == Replayed((1, 1))
    store.wait(1)
    assert store.do(op, "app", ONE, DIGEST) == (2, 2)


def test_a_replayed_answer_does_not_live_longer(store: Store) -> None:
    op = Increment("n")
    store.do(op, "app", ONE, DIGEST)
    store.wait(400_000)
    assert store.do(op, "app", ONE, DIGEST) == Replayed((1, 1))
    store.wait(400_000)
    assert store.do(op, "app", ONE, DIGEST) == (2, 2)


def test_entry_time_that_goes_back_forgets_nothing_and_keeps_the_order(store: Store) -> None:
    store.do(Increment("n"), "app", request_id(1), DIGEST)
    store.now_ms -= 500_000
    store.do(Increment("n"), "app", request_id(2), DIGEST)
    assert store.time_ms == 1_000_000
    store.now_ms = 1_000_000
    store.wait(600_000)
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
    store.wait(600_001)
    assert store.do(op, "app", request_id(10), DIGEST) == (7, 7)
    assert store.requests.count("app") == 1


@pytest.mark.parametrize("steps_ms", [[600_001], [3_600_000], [7 * 86_400_000], [-86_400_000, 86_400_000, 3_600_000]])
def test_a_wall_clock_that_jumps_does_not_expire_an_answer(store: Store, steps_ms: list[int]) -> None:
    """Trap: a change applied twice, because the server's wall clock was put forward between it and its retry."""
    op = Increment("n")
    store.wait(1000)
    store.do(op, "app", ONE, DIGEST)
    for step in steps_ms:
        store.now_ms += step
        store.do(Set("other", b""))
    store.wait(300_000)  # for as long a client retries
    assert store.do(op, "app", ONE, DIGEST) == Replayed((1, 1))
    store.wait(600_000)
    assert store.do(op, "app", ONE, DIGEST) == (2, 2 + len(steps_ms))


def test_a_replay_does_not_move_its_answer_behind_newer_ones(store: Store) -> None:
    for number in range(3):
        store.do(Increment("n"), "app", request_id(number), DIGEST)
        store.wait(1000)
    for _ in range(2):
        store.do(Increment("n"), "app", request_id(0), DIGEST)
    store.wait(600_000 - 3000)
    assert store.do(Increment("n"), "app", request_id(0), DIGEST) == Replayed((1, 1))
    store.wait(1)
    assert store.requests.count("app") == 2
    store.wait(1000)
    assert store.requests.count("app") == 1


def test_what_one_entry_expires_is_bounded_and_the_next_goes_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ANSWERS_EXPIRED_MAX", 4)
    store.apply(1, store.now_ms, [Logged(Increment("n"), "app", request_id(each), DIGEST) for each in range(10)])
    store.wait(600_000)
    left = []
    for _ in range(4):
        store.wait(1)
        left.append(store.requests.count("app"))
    assert left == [6, 2, 0, 0]


@pytest.mark.parametrize("resent", [False, True])
def test_a_failure_of_what_was_sent_on_several_connections_is_remembered(store: Store, resent: bool) -> None:
    """Trap: a change applied twice, or after its caller was told that it is not: the copy on a connection that was
    given up arrives when its condition has come true.
    """
    op = Set("a", b"1", condition="present")
    assert refused(store.do(op, "app", ONE, DIGEST, resent=resent), 4001, key="a")
    store.do(Set("a", b"0"))
    late = store.do(op, "app", ONE, DIGEST)
    if resent:
        assert isinstance(late, Replayed)
        assert refused(late.result, 4001, key="a")
        assert store.value("a") == b"0"
    else:
        assert late == (2, None)


def test_a_remembered_failure_that_is_too_large_keeps_its_code(store: Store) -> None:
    op = Set("k" * 4096, b"1", condition="present")
    store.do(op, "app", ONE, DIGEST, resent=True)
    late = store.do(op, "app", ONE, DIGEST)
    assert isinstance(late, Replayed)
    assert refused(late.result, 4001)


def get_and_set(value: bytes) -> Set:
    return Set("a", value, return_previous=True)


def test_previous_values_in_remembered_answers_have_a_budget(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap: memory outside every budget. The user's oldest answers are reduced to their versions."""
    monkeypatch.setattr(limits, "ANSWERS_SIZE_PER_USER_MAX", 10_000)
    monkeypatch.setattr(limits, "ANSWERS_SIZE_MAX", 15_000)
    store.do(Set("a", bytes(3000)))
    for user in ("x", "y"):
        for number in range(5):
            store.do(get_and_set(bytes(3000)), user, request_id(number), DIGEST)

    def whole(user: str) -> list[bool]:
        retries = [store.do(get_and_set(b""), user, request_id(number), DIGEST) for number in range(5)]
        for version, retry in enumerate(retries, 2 if user == "x" else 7):
            if isinstance(retry, Failure):
                assert (retry.code, retry.outcome, retry.details) == (3011, "applied", {"version": version})
        return [isinstance(retry, Replayed) for retry in retries]

    assert (whole("x"), whole("y")) == ([False, False, True, True, True], [False] * 4 + [True])
    assert store.requests.size <= 15_000
    store.do(Forget("x", [request_id(4), request_id(0)]))
    store.do(get_and_set(bytes(3000)), "y", request_id(5), DIGEST)
    assert store.requests.count("y") == 6
    store.wait(600_001)
    store.do(Set("a", b""))
    assert (len(store.requests), store.requests.size) == (0, 0)


def test_one_user_without_room_for_previous_values_keeps_versions(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ANSWERS_SIZE_MAX", 2000)
    store.do(Set("a", bytes(3000)))
    store.do(get_and_set(b"1"), "x", ONE, DIGEST)
    retry = store.do(get_and_set(b"1"), "x", ONE, DIGEST)
    assert isinstance(retry, Failure)
    assert (retry.code, retry.details) == (3011, {"version": 2})


@pytest.mark.parametrize(("size", "kept"), [(57, True), (58, False)])
def test_an_answer_of_up_to_64_bytes_needs_no_budget(
    store: Store, monkeypatch: pytest.MonkeyPatch, size: int, kept: bool
) -> None:
    monkeypatch.setattr(limits, "ANSWERS_SIZE_MAX", 0)
    store.do(Set("a", bytes(size)))
    answer = store.do(get_and_set(b""), "x", ONE, DIGEST)  # [2, [value, 1, nil]]: 7 bytes around the value
    retry = store.do(get_and_set(b""), "x", ONE, DIGEST)
    assert (retry == Replayed(answer)) if kept else isinstance(retry, Failure)  # type: ignore[arg-type]


@pytest.mark.parametrize("budget", ["ANSWERS_SIZE_PER_USER_MAX", "ANSWERS_SIZE_MAX"])
@pytest.mark.parametrize("lacking", [0, 1])
def test_a_budget_of_answers_is_used_to_its_last_byte(
    store: Store, monkeypatch: pytest.MonkeyPatch, budget: str, lacking: int
) -> None:
    size = 3000 + 8  # [version, [value, version, nil]]
    monkeypatch.setattr(limits, budget, 2 * size - lacking)
    store.do(Set("a", bytes(3000)))
    for number in range(2):
        store.do(get_and_set(bytes(3000)), "x", request_id(number), DIGEST)
    assert store.requests.size == (size if lacking else 2 * size)


def test_an_answer_that_is_reduced_lives_no_longer_than_it_would(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ANSWERS_SIZE_MAX", 4000)
    store.do(Set("a", bytes(3000)))
    for number in range(2):
        store.do(get_and_set(bytes(3000)), "x", request_id(number), DIGEST)
        store.wait(300_000)
    store.check()
    assert store.requests.count("x") == 2
    store.wait(1)
    assert store.requests.count("x") == 1


def test_tables_of_different_clocks_have_different_digests() -> None:
    first, second = Requests(), Requests()
    assert first.digest() == second.digest()
    second.advance(1)
    assert first.digest() != second.digest(), "they will not forget at the same time"


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


def parts_of(part: object) -> Iterator[Any]:
    """The dicts and lists of a part of the state, its objects' own and those in them."""
    if isinstance(part, dict | list):
        yield part
        for each in part.values() if isinstance(part, dict) else part:
            yield from parts_of(each)
    else:
        for name in getattr(type(part), "__slots__", ()):
            yield from parts_of(getattr(part, name))


@pytest.mark.parametrize("result", [(1, None), (1, (bytes(64), 1, None))])
def test_the_answers_of_many_users_grow_in_no_step_of_all_of_them(
    result: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap: a table of 350,000 answers grows in a step of 26 ms, in which a node answers no request. A dict moves all
    its keys when it is full; of those that one user may have it moves 100,000 in 4 ms.
    """
    monkeypatch.setattr(limits, "ANSWERS_PER_USER_MAX", 2000)
    requests = Requests()
    for user in range(10):
        for number in range(2000):
            requests.remember(f"user-{user}", request_id(number), DIGEST, result, 1)
    assert requests.judge("user-0", request_id(2000), DIGEST) is not None, "a user has no more"
    assert len(requests) == 20_000
    assert max(map(len, parts_of(requests))) <= limits.ANSWERS_PER_USER_MAX
    requests.check()


def test_answers_that_stay_among_many_forgotten_ones_keep_their_order() -> None:
    requests, ids = Requests(), count()
    kept = []
    for _ in range(5000):
        new = [request_id(next(ids)) for _ in range(3)]
        for each in new:
            requests.remember("app", each, DIGEST, (1, None), 1)
        kept.append(new[1])
        assert requests.forget("app", [new[2], new[0]]) == 2
    assert [row.request_id for row in requests.rows()] == kept
    requests.check()
    assert requests.forget("app", kept) == len(kept)
    assert (len(requests), list(requests.rows())) == (0, [])
    requests.check()
