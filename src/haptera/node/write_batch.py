"""The writes that the commit pipeline writes together: the commands of one entry, and the places of their results."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from haptera.errors import Code, failure
from haptera.state import Logged, frees, operations

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from haptera.state import Result

#: The result of a write that was dropped before the log; this very object, so that it can be told from others.
DROPPED = failure(Code.CANCELLED, outcome="not_applied")


# Structs, because the objects of each group of writes are made without a line of Python.
class Submission(msgspec.Struct, eq=False):
    """A list of results that fills. ``done`` is called with it once, when nothing is waited for any more."""

    done: "Callable[[list[Result]], None]"
    results: "list[Result]" = []
    waiting: int = 0
    writes: int = 0
    begun: float = 0.0  # when its first write was taken, as time of `time.perf_counter`


class Batch(msgspec.Struct, eq=False):
    """The writes of one entry: the commands, the bytes of each, and the *runs* of their results.

    A run is a submission, the place in it of the first result, and the number of the results, which belong to so many
    commands in a row. Commands that came together have one run, and are answered by it. ``growth`` is the memory that
    the writes add to the store, at most.

    A dropped write leaves a hole, so that the others keep their places; when the holes are as many as the writes that
    are left, they are closed. The place of a write is looked up in an index that is made when the first is dropped, and
    grows with the next. A batch without drops pays nothing for it, and any number of drops costs a constant each.
    """

    #: Whether it was handed to the disk as one that only frees, which may use the reserve of a full disk.
    frees: bool = False
    #: The entry's time, once it was handed to the disk.
    time_ms: int = 0
    commands: list[Logged] = []
    sizes: list[int] = []
    size: int = 0
    growth: int = 0
    _runs: list[tuple[Submission, int, int]] = []
    #: The places of dropped writes, and the place of each write that may be: None until the first is dropped.
    _holes: set[int] | None = None
    _index: dict[tuple[int, int], int] | None = None
    _indexed_runs: int = 0  # the runs that are in the index, and their writes
    _indexed_writes: int = 0

    def add(self, commands: Sequence[Logged], sizes: Sequence[int], submission: Submission, position: int) -> None:
        """Add writes whose results are ``submission.results[position]`` and the ones behind it."""
        self.commands += commands
        self.sizes += sizes
        self.size += sum(sizes)
        self._runs.append((submission, position, len(commands)))
        submission.waiting += len(commands)

    def hand_out(self, results: Sequence[Result]) -> list[Submission]:
        """Give each submission its results. Returns those that wait for nothing more."""
        complete: list[Submission] = []
        stop = 0
        for submission, position, count in self._runs:
            start, stop = stop, stop + count
            submission.results[position : position + count] = results[start:stop]
            submission.waiting -= count
            if not submission.waiting:
                complete.append(submission)
        assert stop == len(results), "each command has a result"
        return complete

    def drop(self, submission: Submission, position: int) -> int | None:
        """Take out the write whose result is ``submission.results[position]``; its bytes, or None if it is not here."""
        index = self._index_runs()
        number = index.pop((id(submission), position), -1)
        if number < 0:
            return None
        size = self.sizes[number]
        self.size -= size
        self.commands[number] = _HOLE  # the command may be large
        if self._holes is None:
            self._holes = set()
        self._holes.add(number)
        if 2 * len(self._holes) >= len(self.commands):
            self.seal()
        return size

    def _index_runs(self) -> dict[tuple[int, int], int]:
        index = self._index
        if index is None:
            index = self._index = {}
            self._indexed_runs = self._indexed_writes = 0
        number = self._indexed_writes
        for submission, first, count in self._runs[self._indexed_runs :]:
            for position in range(first, first + count):
                index[id(submission), position] = number
                number += 1
        self._indexed_runs, self._indexed_writes = len(self._runs), number
        return index

    def seal(self) -> None:
        """Close the holes."""
        holes = self._holes
        if holes is not None:
            left = self._taken(lambda number: number not in holes)
            self.commands, self.sizes, self._runs = left.commands, left.sizes, left._runs
            self._holes = self._index = None

    def takes(self, command: Logged) -> bool:
        """Whether the command frees if those of the batch do. Of a full disk's batches each is of one kind."""
        return not self.commands or frees(command.op) == frees(self.commands[-1].op)

    def only_frees(self) -> bool:
        """Whether each of its commands frees."""
        return all(frees(command.op) for command in self.commands)

    def split(self) -> Batch:
        """Take out the commands that free, as a batch of their own. The holes must be closed."""
        freeing = self._taken(lambda number: frees(self.commands[number].op))
        rest = self._taken(lambda number: not frees(self.commands[number].op))
        self.commands, self.sizes, self.size, self._runs = rest.commands, rest.sizes, rest.size, rest._runs
        return freeing

    def _taken(self, chosen: Callable[[int], bool]) -> Batch:
        """Some of the writes, by their numbers, as a batch."""
        taken, number = Batch(), 0
        for submission, first, count in self._runs:
            for position in range(first, first + count):
                if chosen(number):
                    taken.commands.append(self.commands[number])
                    taken.sizes.append(self.sizes[number])
                    taken.size += self.sizes[number]
                    taken._runs.append((submission, position, 1))
                number += 1
        return taken


_HOLE = Logged(operations.Forget("", []))
