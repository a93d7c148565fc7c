"""The root of all errors, and the class of errors that a peer answers with."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from haptera.errors.code_table import Outcome

# A detail may hold a key of 4096 bytes, or anything else that a peer put there; an error line stays readable.
DETAIL_TEXT_MAX: Final = 200


class HapteraError(Exception):
    """Every error of Haptera.

    Attributes:
        code: The number of spec/errors.toml, or None for an error that no peer has told.
        name: The name in capitals that belongs to the code, or to the class where there is no code.
        outcome: Whether the call took effect: ``not_applied`` (it may be made again), ``unknown`` (it may have taken
            effect: make it again only with the same request id) or ``applied``.
        details: The values that belong to the code: a key, for instance.
    """

    code: int | None = None
    name: str = "HAPTERA_ERROR"
    outcome: Outcome = "unknown"
    details: Mapping[str, Any] = MappingProxyType({})


class ServerError(HapteraError):
    """The peer answered a call with an error (spec/protocol.md, section 6).

    `haptera.errors` has a subclass for each code that this version knows; the code of a newer peer is a plain
    `ServerError`.
    """

    code: int

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
        self.details: dict[str, Any] = {} if details is None else details
        # Past KeyError, OSError and the like among a subclass's bases, which would read meaning into the arguments.
        BaseException.__init__(self, self.code, name, message)

    def __str__(self) -> str:
        return describe(self.name, self.code, self.message, self.details)


class CallError(ServerError):
    """An application's own error, with a code from 10000.

    A handler raises it to give its caller exactly this: code, name, message, outcome (`not_applied`, `unknown` or
    `applied`) and details. Anything else that a handler raises reaches the caller as HandlerFailed, without its text.
    """


def describe(name: str, code: int, message: str, details: dict[str, Any]) -> str:
    """Return an error as one readable line.

    Its words may be the other side's. They are kept as they came, and made harmless here: a traceback shows them on a
    terminal, which would obey some.
    """
    text = f"{name} ({code}): {message}"
    if details:
        shown = ", ".join(f"{key}: {_shortened(value)}" for key, value in details.items())
        text = f"{text} {{{shown}}}"
    return printable(text)


def printable(text: str, kept: str = "") -> str:
    """Return ``text`` with escapes for all characters that are not printable, but for the ones in ``kept``."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in kept else char.encode("unicode_escape").decode("ascii") for char in text
    )


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= DETAIL_TEXT_MAX else text[: DETAIL_TEXT_MAX - 1] + "…"
