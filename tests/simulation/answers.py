"""The answers of all callers in the order of their revisions, replayed against the past of the store.

An answer names the revision that it is of. The store at that revision must give this very answer, and the revision must
not be before any that was told to anyone before the call began.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tests.simulation.promises import PromiseBroken

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from haptera import Entry
    from tests.simulation.past import Past

#: The value and the version that a key was found with; None where it was missing.
Found = tuple[bytes, int] | None


class Span(NamedTuple):
    """The time of a call: the newest revision that any caller knew when it began, and the node's when it ended."""

    low: int
    high: int


class _Read(NamedTuple):
    label: str
    span: Span
    revision: int
    found: Mapping[str, Found]


class _Written(NamedTuple):
    label: str
    span: Span
    revision: int
    values: Mapping[str, bytes | None]


class Answers:
    """The answers of all callers; see the head of this module. ``reached`` tells the node's revision."""

    def __init__(self, reached: Callable[[], int] = lambda: 0) -> None:
        self.reached = reached
        #: Whether a read was refused because the changes since its revision are not kept.
        self.compacted = False
        #: The newest revision that any caller was told of.
        self.newest = 0
        self._reads: list[_Read] = []
        self._missing: list[tuple[str, Span, str]] = []
        self._written: list[_Written] = []
        self._past_reads: list[_Read] = []
        self._refused: dict[tuple[str, bytes], str] = {}

    def told(self, revision: int) -> None:
        """Note a revision that an answer has named."""
        self.newest = max(self.newest, revision)

    def read(self, label: str, span: Span, revision: int, found: Mapping[str, Found]) -> None:
        """Note what a read has found at its revision."""
        self._reads.append(_Read(label, span, revision, found))

    def read_past(self, label: str, span: Span, revision: int, found: Mapping[str, Found]) -> None:
        """Note what a read of the past has found."""
        self._past_reads.append(_Read(label, span, revision, found))

    def missing(self, label: str, span: Span, key: str) -> None:
        """Note that a key was missing. That answer names no revision."""
        self._missing.append((label, span, key))

    def written(self, label: str, span: Span, revision: int, values: Mapping[str, bytes | None]) -> None:
        """Note a change: of each key the new value, or None for one that was deleted."""
        self._written.append(_Written(label, span, revision, values))

    def refused(self, label: str, values: Mapping[str, bytes | None]) -> None:
        """Note a change that was not applied. No other change writes its values."""
        self._refused |= {(key, value): label for key, value in values.items() if value is not None}

    def check(self, past: Past) -> None:
        """Hold all answers against the past. Raises PromiseBroken."""
        for written in sorted(self._written, key=lambda answer: answer.revision):
            _check_written(written, past)
        for read in sorted(self._reads, key=lambda answer: answer.revision):
            if read.revision < read.span.low:
                raise PromiseBroken(f"{read.label} is of revision {read.revision}, and {read.span.low} was known")
            _check_read(read, past)
        for read in self._past_reads:
            _check_read(read, past)
        for change in past.changes(lambda _: True, past.begin):
            label = None if change.entry is None else self._refused.get((change.key, change.entry[0]))
            if label is not None:
                raise PromiseBroken(f"{label} was not applied, and has made {change}")
        for label, span, key in self._missing:
            if span.low >= past.begin and not past.gone_within(key, span.low, span.high):
                raise PromiseBroken(f"{label} found nothing, and it was there from revision {span.low} to {span.high}")


def found(entry: Entry | None) -> Found:
    """An entry as answers are noted."""
    return None if entry is None else (bytes(entry.value), entry.version)


def _check_written(answer: _Written, past: Past) -> None:
    label, span, revision, values = answer
    if revision <= span.low:
        raise PromiseBroken(f"{label} made revision {revision}, and {span.low} was known when it began")
    for key, value in values.items() if revision > past.begin else ():
        change = past.change(key, revision)
        made = change is not None and (None if change.entry is None else change.entry[0]) == value
        if not made:
            raise PromiseBroken(f"{label} was answered with revision {revision}, which has made {change}")


def _check_read(answer: _Read, past: Past) -> None:
    label, _, revision, entries = answer
    if not past.begin <= revision <= past.end:
        if revision > past.end:
            raise PromiseBroken(f"{label} is of revision {revision}, and there are {past.end}")
        return
    for key, entry in entries.items():
        right = past.entry(key, revision)
        if entry != (None if right is None else right[:2]):
            raise PromiseBroken(f"{label} gave {entry} for {key} at revision {revision}, where it was {right}")
