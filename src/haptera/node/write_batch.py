"""The writes that the commit pipeline writes together: the commands of one entry, and the place of each result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haptera.errors import Code, failure
from haptera.state import Logged, operations

if TYPE_CHECKING:
    from collections.abc import Callable

    from haptera.state import Result

#: The result of a write that was dropped before the log; this very object, so that it can be told from others.
DROPPED = failure(Code.CANCELLED, outcome="not_applied")


class Submission:
    """A list of results that fills. ``done`` is called with it once, when nothing is waited for any more."""

    __slots__ = ("begun", "done", "results", "waiting", "writes")

    def __init__(self, done: Callable[[list[Result]], None]) -> None:
        self.done = done
        self.results: list[Result] = []
        self.waiting = 0
        self.writes = 0
        self.begun = 0.0  # when its first write was taken, as time of `time.perf_counter`


class Batch:
    """The writes of one entry: for each the submission, the place in it that its result belongs to, and its bytes.

    ``growth`` is the memory that the writes add to the store, at most.

    A dropped write leaves a hole, so that the others keep their places; when the holes are as many as the writes that
    are left, they are closed. The place of a write is looked up in an index that is made when the first is dropped, and
    grows with the next. A batch without drops pays nothing for it, and any number of drops costs a constant each.
    """

    __slots__ = ("_holes", "_index", "_indexed", "commands", "frees", "growth", "places", "size", "time_ms")

    def __init__(self) -> None:
        #: Whether it was handed to the disk as one that only frees, which may use the reserve of a full disk.
        self.frees = False
        #: The entry's time, once it was handed to the disk.
        self.time_ms = 0
        self.commands: list[Logged] = []
        self.places: list[tuple[Submission, int, int]] = []
        self.size = 0
        self.growth = 0
        self._holes: set[int] = set()
        self._index: dict[tuple[int, int], int] = {}
        self._indexed = 0

    def drop(self, submission: Submission, position: int) -> int | None:
        """Take out the write whose result is ``submission.results[position]``; its bytes, or None if it is not here."""
        places = self.places
        for number in range(self._indexed, len(places)):
            owner, at, _ = places[number]
            self._index[id(owner), at] = number
        self._indexed = len(places)
        number = self._index.pop((id(submission), position), -1)
        if number < 0:
            return None
        size = places[number][2]
        self.size -= size
        self.commands[number] = _HOLE  # the command may be large
        self._holes.add(number)
        if 2 * len(self._holes) >= len(places):
            self.seal()
        return size

    def seal(self) -> None:
        """Close the holes."""
        if self._holes:
            left = [number for number in range(len(self.places)) if number not in self._holes]
            self.commands = [self.commands[number] for number in left]
            self.places = [self.places[number] for number in left]
            self._holes.clear()
            self._index.clear()
            self._indexed = 0

    def takes(self, command: Logged) -> bool:
        """Whether the command frees if those of the batch do. Of a full disk's batches each is of one kind."""
        return not self.commands or operations.frees(command.op) == operations.frees(self.commands[-1].op)

    def only_frees(self) -> bool:
        """Whether each of its commands frees."""
        return all(operations.frees(command.op) for command in self.commands)

    def split(self) -> Batch:
        """Take out the commands that free, as a batch of their own. The holes must be closed."""
        freeing, rest = Batch(), Batch()
        for command, place in zip(self.commands, self.places, strict=True):
            batch = freeing if operations.frees(command.op) else rest
            batch.commands.append(command)
            batch.places.append(place)
            batch.size += place[2]
        self.commands, self.places, self.size = rest.commands, rest.places, rest.size
        return freeing


_HOLE = Logged(operations.Forget("", []))
