"""Errors that no peer tells: a program uses Haptera otherwise than it can be used, its transaction conflicts, it has
lost what it held, or a value is of another type than it expects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from haptera.errors.base import HapteraError, printable

if TYPE_CHECKING:
    from haptera.errors.code_table import Outcome


class ConfigurationError(HapteraError):
    """An option, a URL, a configuration file or the environment is wrong or incomplete."""

    name: str = "CONFIGURATION_ERROR"
    outcome: Outcome = "not_applied"


class TransactionConflict(HapteraError):
    """A key that a transaction has read was changed before its commit. Nothing was written: it may be run again."""

    name: str = "TRANSACTION_CONFLICT"
    outcome: Outcome = "not_applied"

    def __init__(self) -> None:
        super().__init__("a key that the transaction has read was changed meanwhile")


class LeaseLost(HapteraError):
    """A lease was not renewed in time, or the node has ended it: its keys are deleted, or will be."""

    name: str = "LEASE_LOST"


class LockLost(HapteraError):
    """A lock, a leadership or a permit was lost while a program held it, or waited for it."""

    name: str = "LOCK_LOST"


class UnexpectedValue(HapteraError, ValueError):
    """A value does not fit the type that a program reads it as, or writes it as.

    ``details`` has the ``reason``, and the ``key``, or the ``service`` and the ``method`` of an answer. `outcome` says
    whether the call has taken effect: a read has none, and a value that was to be written was not sent.
    """

    name: str = "UNEXPECTED_VALUE"

    def __init__(self, of: str, type_name: str, reason: str, outcome: Outcome, **details: str) -> None:
        super().__init__(printable(f"{of} does not fit {type_name}: {reason}"))
        self.reason = reason
        #: The key of the value; None for an answer.
        self.key: str | None = details.get("key")
        self.outcome: Outcome = outcome
        self.details: dict[str, str] = {**details, "reason": reason}


class WaitTimeout(HapteraError, TimeoutError):
    """A program waited for others as long as it wanted to: they kept what it waited for, or did not come."""

    name: str = "WAIT_TIMEOUT"
    outcome: Outcome = "not_applied"


class WrongLoop(HapteraError, RuntimeError):
    """An object was used outside the event loop, the thread or the process that it belongs to.

    It is raised before anything is sent, so `outcome` is always `not_applied`. The message names both places.
    """

    name: str = "WRONG_LOOP"
    outcome: Outcome = "not_applied"
