"""The check of a chain (spec/audit.md, section 5): every line against the one before, with file and line of each fault.
Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from haptera.node.audit.chain import BEGINNING, Head, digest_of, read_line
from haptera.node.audit.event import CONTINUED, REMOVED

__all__ = ["FAULTS_MAX", "ChainCheck", "Fault"]

#: Faults that are listed; the others are counted. A person reads the first few.
FAULTS_MAX: Final = 1000

_REMOVED: Final = f'"method":"{REMOVED}"'.encode()
#: Of a line of kind log: a text in another field has its quotation marks escaped.
_CONTINUED: Final = f'"kind":"log","method":"{CONTINUED}"'.encode()
#: A file is made before its first line is written.
_NO_LINE_YET: Final = "the file has no line: a crash or a full disk came before its first one, or it was emptied"
_NO_LINE: Final = "no file has a line: they were emptied, unless a crash or a full disk came before the first one"


class Fault(Struct, frozen=True):
    """A place where the chain is not as it was written. ``line`` counts from 1, ``offset`` in bytes from 0."""

    file: str
    line: int
    offset: int
    problem: str


class ChainCheck:
    """Takes the lines of a chain in their order. ``heads`` are lines that it must have, known from elsewhere.

    ``head`` is that of the last line, ``first`` the first sequence, and ``lines`` the number of lines.
    ``faults`` are the places that are wrong, and ``torn`` is the end of the last file that a crash may have left.
    """

    def __init__(self, heads: Iterable[Head] = ()) -> None:
        self.head: Head = BEGINNING
        self.first: int | None = None
        self.lines: int = 0
        self.faults: list[Fault] = []
        self.omitted: int = 0
        self.torn: Fault | None = None
        #: Heads that cannot be compared, because the lines are not there any more.
        self.unknown: list[Head] = []
        #: The last line that retention says it has removed.
        self.removed_through: int = 0
        self._continued_behind = 0  # the line before the first one, where that says that it has none
        self._heads = list(heads)
        self._seen: dict[int, list[bytes]] = {head.sequence: [] for head in self._heads}
        self._doubtful = False  # the line before is not as it was written, so the next need not fit
        self._place = ("", 1, 0)
        self._first_file = ""
        self._named: int | None = None  # the sequence that the name of the file promises

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults

    def begin_file(self, file: str, first: int) -> None:
        """Go on with a file whose name says that it begins with the line ``first``."""
        self._place = (file, 1, 0)
        self._named = first

    def add_line(self, line: bytes, end: int) -> None:
        """Take the next line of the file, without its end; ``end`` is the offset behind it."""
        found = read_line(line)
        if found is None:
            self._fault("it is not as it was written: its form or its check is wrong")
            self._take(self._presumed(line), doubtful=True)
        else:
            self._judge(found.head, found.previous)
            if _REMOVED in line:
                self._note_removal(line)
            elif self.first is None and _CONTINUED in line:
                self._continued_behind = found.head.sequence - 1
            self._take(found.head, doubtful=False)
        file, number, _ = self._place
        self._place = (file, number + 1, end)

    def add_rest(self, rest: bytes, *, last: bool) -> None:
        """Take the bytes behind the last line of a file: of the ``last`` file a crash may have left some."""
        if last:
            self.torn = Fault(*self._place, f"{len(rest)} bytes that are no whole line, which the next start cuts off")
        else:
            self._fault("it has no end, and another file follows")
            self._take(self._presumed(rest), doubtful=True)

    def end(self) -> None:
        """Say that there is no other line."""
        file, number, _ = self._place
        if file and number == 1 and self.torn is None:
            if self.lines:
                self.torn = Fault(*self._place, _NO_LINE_YET)
            else:
                self._fault(_NO_LINE)
        for head in self._heads:
            if head.sequence > self.head.sequence:
                self._fault(f"the chain ends with line {self.head.sequence}, and line {head.sequence} was in it")
            elif head.digest not in (digests := self._seen[head.sequence]):
                if digests or (self.first is not None and head.sequence >= self.first):
                    self._fault(f"line {head.sequence} is another one than the head {head} says")
                else:
                    self.unknown.append(head)
        if self.first is not None and self.first - 1 > max(self.removed_through, self._continued_behind):
            self._place = (self._first_file, 1, 0)
            self._fault(f"the lines before {self.first} are missing, and no line says that they were removed")

    def _presumed(self, line: bytes) -> Head:
        """The head of a line that does not say it: it is the next one, or the first of its file."""
        named, self._named = self._named, None
        sequence = self.head.sequence + 1 if self.first is not None or named is None else named
        return Head(sequence, digest_of(line))

    def _judge(self, head: Head, previous: bytes) -> None:
        before = self.head
        named, self._named = self._named, None
        if named is not None and head.sequence != named:
            self._fault(f"the file begins with line {head.sequence}, and its name says {named}")
        if self.first is None:
            if head.sequence == 1 and previous != BEGINNING.digest:
                self._fault("the first line of a chain names a line before it")
        elif head.sequence > before.sequence + 1:
            self._fault(f"line {head.sequence} stands behind {before.sequence}: what was between them is missing")
        elif head.sequence <= before.sequence:
            self._fault(f"line {head.sequence} stands behind {before.sequence}: it was put in, or moved")
        elif previous != before.digest and not self._doubtful:
            self._fault("it does not fit the line before it: one of the two was changed")

    def _take(self, head: Head, *, doubtful: bool) -> None:
        if self.first is None:
            self.first, self._first_file = head.sequence, self._place[0]
        self.head, self._doubtful = head, doubtful
        self.lines += 1
        digests = self._seen.get(head.sequence)
        if digests is not None:
            digests.append(head.digest)

    def _note_removal(self, line: bytes) -> None:
        try:
            fields = json.loads(line)
            through = fields["detail"]["through"]
            if fields["method"] == REMOVED and type(through) is int:
                self.removed_through = max(self.removed_through, through)
        except (ValueError, KeyError, TypeError):
            pass  # no log writes that

    def _fault(self, problem: str) -> None:
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(Fault(*self._place, problem))
        else:
            self.omitted += 1
