"""The keys of a queue (spec/recipes.md, section 4): which job a key belongs to, and the texts that they hold."""

from __future__ import annotations

from typing import Final

from haptera.key_rules import INT64_MAX, key_refusal

#: Digits of a job's number in its keys, so that the order of the keys is that of the numbers.
DIGITS: Final = 20
#: The key among the claims that says which jobs have become free to be taken. One watch tells of both.
READY: Final = "ready"


class QueueKeys:
    """The keys of the queue ``name``. Raises ``InvalidKey`` for a name that leaves no room for them.

    A job goes by its *digits*, the last part of its keys.
    """

    __slots__ = ("attempts", "claims", "items", "last", "ready")

    def __init__(self, name: str) -> None:
        self.last: str = f"{name}/.last"
        self.items: str = f"{name}/.items/"
        self.claims: str = f"{name}/.claims/"
        self.attempts: str = f"{name}/.attempts/"
        self.ready: str = self.claims + READY
        for key in (name, self.attempts + "0" * DIGITS):
            refused = key_refusal(key)
            if refused is not None:
                raise refused.exception()


def digits_of(number: int) -> str:
    """The digits of a job's number."""
    return f"{number:0{DIGITS}}"


def are_digits(text: str) -> bool:
    """Whether the last part of a key belongs to a job."""
    return len(text) == DIGITS and text.isascii() and text.isdigit()


def ready_text(first: int, last: int) -> str:
    """The value of the key ``ready`` for the jobs from ``first`` to ``last``."""
    return f"{first}-{last}"


def ready_numbers(value: bytes) -> tuple[int, int] | None:
    """The first and the last number in a value of the key ``ready``; None for a value of another program."""
    first, dash, last = value.partition(b"-")
    if not dash or not (first.isdigit() and last.isdigit()) or len(value) > 2 * DIGITS:
        return None
    numbers = int(first), int(last)
    return numbers if 1 <= numbers[0] <= numbers[1] <= INT64_MAX else None
