"""What the exceptions of single codes (`haptera.error_codes`) are made from; `haptera.errors` has the whole tree."""

from typing import Any, Final

from haptera.error_table import Outcome

# A detail may hold a key of 4096 bytes, or whatever a peer put there; an error line stays readable.
DETAIL_TEXT_MAX: Final = 200


class HapteraError(Exception):
    """Every error of Haptera."""


class ServerError(HapteraError):
    """The peer answered a call with an error (spec/protocol.md, section 6).

    `outcome` says whether the call took effect: `not_applied` (it may be made again), `unknown` (it may have: make it
    again only with the same request id) or `applied`. `details` holds what belongs to the code, a key for instance.
    `haptera` exports a subclass for each code that this version knows; a newer peer's code is a plain ServerError.
    """

    def __init__(
        self,
        code: int,
        name: str,
        message: str,
        *,
        outcome: Outcome = "unknown",
        details: dict[str, Any] | None = None,
    ) -> None:
        self.code = int(code)
        self.name = name
        self.message = message
        self.outcome: Outcome = outcome
        self.details = {} if details is None else details
        # Past KeyError, OSError and the like among a subclass's bases, which would read meaning into the arguments.
        BaseException.__init__(self, self.code, name, message)

    def __str__(self) -> str:
        return describe(self.name, self.code, self.message, self.details)


def describe(name: str, code: int, message: str, details: dict[str, Any]) -> str:
    """Return an error as one readable line.

    Its words may be the other side's. They are kept as they came, and made harmless here: a traceback shows them on a
    terminal, which would obey what it can.
    """
    text = f"{name} ({code}): {message}"
    if details:
        shown = ", ".join(f"{key}: {_shortened(value)}" for key, value in details.items())
        text = f"{text} {{{shown}}}"
    return printable(text)


def printable(text: str, kept: str = "") -> str:
    """Return ``text`` with escapes for all characters that are not printable, but for those in ``kept``."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in kept else char.encode("unicode_escape").decode("ascii") for char in text
    )


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= DETAIL_TEXT_MAX else text[: DETAIL_TEXT_MAX - 1] + "…"
