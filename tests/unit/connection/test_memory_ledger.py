"""The bytes of a connection are charged to three budgets, and each of them can refuse (section 3)."""

from __future__ import annotations

import pytest

from haptera.connection.config import HELD_MIN, Budget
from haptera.connection.memory_ledger import Ledger
from haptera.connection.stream_halves import ReceivingHalf
from haptera.connection.stream_law import HalfState

KIB = 1024


def half() -> ReceivingHalf:
    return ReceivingHalf(1, 0, HalfState.OPEN)


def ledgers(user: Budget, process: Budget, count: int = 2) -> list[Ledger]:
    """The ledgers of some connections of one user."""
    made = [Ledger(1000 * KIB, process) for _ in range(count)]
    for ledger in made:
        ledger.share(user)
    return made


def test_the_connections_of_a_user_are_refused_together_and_others_go_on() -> None:
    process, user = Budget(1000 * KIB), Budget(250 * KIB)
    first, second = ledgers(user, process)
    other = Ledger(1000 * KIB, process)
    assert first.hold(half(), 150 * KIB)
    assert second.hold(half(), 100 * KIB)
    assert (second.room, first.room) == (0, 0)
    assert not second.hold(half(), 1)
    assert not first.hold(half(), 1)
    assert first.over_budget
    assert not first.has_memory(HELD_MIN + 1)
    assert first.messages_room(10) == HELD_MIN // 10
    assert other.hold(half(), 300 * KIB)
    assert not other.over_budget
    assert (user.used, process.used) == (250 * KIB, 550 * KIB)


def test_a_connection_that_holds_little_goes_on_beside_others_of_its_user() -> None:
    process, user = Budget(1000 * KIB), Budget(250 * KIB)
    first, second = ledgers(user, process)
    assert first.hold(half(), 250 * KIB)
    assert second.hold(half(), HELD_MIN)
    assert not second.hold(half(), 1)
    assert second.has_memory(HELD_MIN)


def test_each_way_to_give_bytes_back_gives_them_to_the_user() -> None:
    process, user = Budget(1000 * KIB), Budget(250 * KIB)
    first, second = ledgers(user, process)
    held = half()
    assert first.hold(held, 30)
    first.take_on(20)
    first.charge(15)
    first.settle(40)
    second.hold_anyway(half(), 7)
    assert (user.used, process.used) == (97, 97)
    first.release(held, 10)
    first.take_off(20)
    assert user.used == 67
    first.close()
    first.settle(0)
    assert (user.used, process.used) == (7, 7)
    second.close()
    assert (user.used, process.used) == (0, 0)


def test_a_connection_takes_its_bytes_along_to_the_budget_of_its_user() -> None:
    process, user = Budget(1000 * KIB), Budget(250 * KIB)
    ledger = Ledger(1000 * KIB, process)
    ledger.take_on(100)
    ledger.charge(11)
    ledger.share(user)
    assert (user.used, process.used) == (111, 111)
    ledger.check(100)
    ledger.take_off(100)
    ledger.settle(0)
    assert user.used == 0


def test_without_a_user_the_budget_of_the_process_decides() -> None:
    process = Budget(100 * KIB)
    first, second = Ledger(1000 * KIB, process), Ledger(1000 * KIB, process)
    assert first.hold(half(), 100 * KIB)
    assert first.over_budget
    assert second.over_budget
    assert second.room == 0
    with pytest.raises(AssertionError):
        first.check(1)
