"""Programs that are stopped after any call to the file system, and what a crash leaves of their files.

The program runs once, and its files are kept as each change leaves them. Run again for each place, it would make other
keys each time; in one run many places look alike after a crash, and each look is checked once.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from haptera.testing.filesystem import CHANGES, MemoryFileSystem, _Directory, _Node

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping

Told = TypeVar("Told")


class Stop(NamedTuple, Generic[Told]):
    """A program that was stopped after so many calls: its files, with every unsynced change, and what it had told."""

    after: int
    fs: MemoryFileSystem
    told: Told


class _Recorder(MemoryFileSystem):
    """Notes its files before its first call and behind each change, as a program leaves them that gets no further."""

    def __init__(self, begun: MemoryFileSystem, note: Callable[[], None]) -> None:
        super().__init__()
        self._root = deepcopy(begun)._root
        self._note = note

    def called(self, name: str, path: str) -> None:
        self.note()
        super().called(name, path)

    def note(self) -> None:
        if not self.calls or self.calls[-1][0] in CHANGES:
            self._note()

    def files(self) -> MemoryFileSystem:
        """The files as they are now, for a process that has made no call."""
        left = MemoryFileSystem()
        left._root = deepcopy(self._root)
        return left


def stops(
    program: Callable[[MemoryFileSystem], object], told: Callable[[], Told], begun: MemoryFileSystem | None = None
) -> list[Stop[Told]]:
    """Run a program to its end, and return it as it is stopped before its first call and behind each change.

    It begins with the files of ``begun``, which stay as they are. ``told`` gives what it has told so far.
    """
    found: list[Stop[Told]] = []
    recorder = _Recorder(
        MemoryFileSystem() if begun is None else begun,
        lambda: found.append(Stop(len(recorder.calls), recorder.files(), told())),
    )
    program(recorder)
    recorder.note()
    return found


def lose(fs: MemoryFileSystem, loss: str, seed: int) -> MemoryFileSystem:
    """The files that a "killed" process leaves, or a power failure of another name. ``fs`` stays as it is."""
    return deepcopy(fs).restart() if loss == "killed" else fs.power_failure(loss, seed)  # type: ignore[arg-type]


def left_by(stopped: Iterable[Stop[Told]], loss: str, seed: int) -> Iterator[tuple[MemoryFileSystem, Told]]:
    """Give what is left by a loss at each of the places, with what had been told, and none of it twice."""
    given: set[Hashable] = set()
    for stop in stopped:
        left = lose(stop.fs, loss, seed)
        if (look := (image(left), stop.told)) not in given:
            given.add(look)
            yield left, stop.told


def image(fs: MemoryFileSystem) -> Hashable:
    """All that a file system holds, synced or not: two that are equal need no more than one look."""
    return _image(fs._root)


def _image(node: _Node | _Directory | None) -> Hashable:
    if isinstance(node, _Node):
        return bytes(node.seen), bytes(node.disk), tuple(node.pending)
    if isinstance(node, _Directory):
        return _names(node.seen), _names(node.disk), tuple(map(_names, node.pending))
    return None


def _names(names: Mapping[str, _Node | _Directory | None]) -> Hashable:
    return tuple((name, _image(names[name])) for name in sorted(names))
