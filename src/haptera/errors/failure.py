"""An error as a value: the form in which it travels between the layers and in an ERROR frame.

On the hot path "no such key" is an ordinary answer, and raising it would cost more than finding it. It becomes an
exception where a caller waits for one.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from haptera.errors.base import CallError, ServerError
from haptera.errors.code_table import TABLE, Outcome

# Codes below belong to the protocol.
APPLICATION_CODE_MIN: Final = 10_000


class Failure(msgspec.Struct, frozen=True):
    """An error as a value, and the payload of an ERROR frame (spec/protocol.md, section 6)."""

    code: int
    name: str
    message: str
    outcome: Outcome
    details: dict[str, Any]

    def exception(self) -> ServerError:
        """The exception for this error: its code's class, CallError from 10000, ServerError for a code not known here.

        Returns it, and raises nothing.
        """
        from haptera.errors.codes import BY_CODE  # noqa: PLC0415 - a class for each code, made when one is needed

        error_class = CallError if self.code >= APPLICATION_CODE_MIN else BY_CODE.get(self.code, ServerError)
        return error_class(self.code, self.name, self.message, outcome=self.outcome, details=self.details)


def failure(
    code: int,
    details: dict[str, Any] | None = None,
    *,
    outcome: Outcome | None = None,
    message: str | None = None,
) -> Failure:
    """The Failure of a protocol code (`Code`): name, message and outcome follow unless given.

    Raises ValueError for a code that the protocol does not define.
    """
    name, default_message, default_outcome = described(code)
    return Failure(
        int(code),
        name,
        default_message if message is None else message,
        default_outcome if outcome is None else outcome,
        {} if details is None else details,
    )


def described(code: int) -> tuple[str, str, Outcome]:
    """Return the name, the message and the outcome of a code. Raises ValueError for one that is not defined."""
    row = TABLE.get(code)
    if row is None:
        raise ValueError(f"{code} is not an error code of the protocol")
    return row
