"""The calls of one client of a simulated node: each is told in the transcript, and its answer noted for the end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar, Final

from haptera import Entry
from haptera.errors import (
    ConnectionLost,
    Fenced,
    HapteraError,
    KeyNotFound,
    LeaseNotFound,
    RemoteProtocolError,
    RevisionCompacted,
    ServerError,
    TransactionConflict,
    VersionMismatch,
)
from tests.simulation.answers import Answers, Span, found
from tests.simulation.promises import PromiseBroken

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from haptera import Database
    from tests.simulation.transcript import Transcript

TIMEOUT_S: Final = 5.0
#: Bytes of a value of which some fill a segment, or the window of a watch where that is narrow.
LARGE: Final = 9000
SIZES: Final = (8, 8, 8, 300, LARGE)

#: Refusals that say something of the store.
JUDGED: Final = (Fenced, KeyNotFound, LeaseNotFound, TransactionConflict, VersionMismatch)

#: The answer of a call that had none.
REFUSED: Final = object()


class Calls:
    """Makes one call after the other. ``kind`` is what its name begins with."""

    kind: ClassVar = "client"

    def __init__(
        self, number: int, db: Database, answers: Answers, choices: random.Random, transcript: Transcript
    ) -> None:
        self.name = f"{self.kind} {number}"
        self._db = db
        self._answers = answers
        self._choices = choices
        self._transcript = transcript
        self._written = 0
        self._sent_at = 0.0
        self._span = Span(0, 0)  # of the last call

    async def _ask(
        self,
        label: str,
        call: Callable[[], Awaitable[Any]],
        writes: Mapping[str, bytes | None] | None = None,
        open_: Callable[[], None] | None = None,
    ) -> Any:
        """Make a call that writes some values; `REFUSED` without an answer. ``open_`` is called where it may have
        changed something. Raises the errors of `JUDGED`.
        """
        self._tell(label)
        low, self._sent_at = self._answers.newest, self._now()
        try:
            answer = await call()
            self._span = Span(low, self._answers.reached())
            self._answers.told(self._db.revision)
        except JUDGED as error:
            self._span = Span(low, self._answers.reached())
            self._tell(f"{label}: {type(error).__name__}")
            self._answers.refused(label, writes or {})
            raise
        except (ServerError, ConnectionLost, RemoteProtocolError) as error:
            outcome = error.outcome
            self._tell(f"{label}: {outcome}, {error}")
            self._answers.compacted |= isinstance(error, RevisionCompacted)
            if outcome == "applied":
                raise PromiseBroken(f"{label} was applied, and its answer was not kept") from error
            if outcome == "not_applied":
                self._answers.refused(label, writes or {})
            elif open_ is not None:
                open_()
            return REFUSED
        except HapteraError as error:
            raise PromiseBroken(f"{label} met an error that no fault explains: {error!r}") from error
        self._tell(f"{label}: {_answer(answer)}")
        return answer

    def _note_change(self, label: str, revision: int, values: Mapping[str, bytes | None]) -> None:
        self._answers.written(f"{self.name}: {label}", self._span, revision, values)

    def _note_entry(self, key: str, entry: Entry | None) -> None:
        """Note what a get has found."""
        label = f"{self.name}: get {key}"
        if entry is None:
            self._answers.missing(label, self._span, key)
        else:
            self._note_entries(label, self._db.revision, [key], [entry])

    def _note_entries(
        self, label: str, revision: int, keys: Sequence[str], entries: Sequence[Entry], *, of_the_past: bool = False
    ) -> None:
        """Note what a read of some keys has found, at a revision."""
        values = dict.fromkeys(keys) | {entry.key: found(entry) for entry in entries}
        note = self._answers.read_past if of_the_past else self._answers.read
        note(f"{self.name}: {label}", self._span, revision, values)

    def _value(self, size: int | None = None) -> bytes:
        """A value that no other call writes, of any size unless one is given."""
        self._written += 1
        size = self._choices.choice(SIZES) if size is None else size
        return f"{self.name}: {self._written} ".encode().ljust(size, b".")

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _tell(self, text: str) -> None:
        self._transcript.add(self.name, text)


def shown(value: bytes | None) -> str:
    """A value as the transcript has it."""
    return "nothing" if value is None else repr(value.decode().rstrip(". "))


def _answer(answer: Any) -> str:
    if isinstance(answer, list):
        return f"[{', '.join(map(_answer, answer))}]"
    if isinstance(answer, Entry):
        return f"{shown(bytes(answer.value))}, version {answer.version}"
    return str(answer)
