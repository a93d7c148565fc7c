"""The connections of one user share a budget, and others have their own."""

from __future__ import annotations

from haptera.node.user_budgets import UserBudgets

MIB = 1024 * 1024


def test_the_connections_of_a_user_have_one_budget_of_a_quarter() -> None:
    budgets = UserBudgets(1024 * MIB, 64 * MIB)
    first, second, other = budgets.take("ann"), budgets.take("ann"), budgets.take("bob")
    assert first is second
    assert other is not first
    assert first.limit == 256 * MIB
    first.used += 5
    assert (budgets.used("ann"), budgets.used("bob"), budgets.used("eve")) == (5, 0, 0)


def test_a_user_has_no_less_than_one_connection_may_hold() -> None:
    assert UserBudgets(100 * MIB, 64 * MIB).limit == 64 * MIB


def test_a_budget_is_kept_until_the_last_connection_is_gone() -> None:
    budgets = UserBudgets(1024 * MIB, 64 * MIB)
    first = budgets.take("ann")
    assert budgets.take("ann") is first
    budgets.give_back("ann")
    assert budgets.take("ann") is first
    for _ in range(2):
        budgets.give_back("ann")
    assert budgets._budgets == {}
    assert budgets.take("ann") is not first
