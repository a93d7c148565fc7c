"""The findings of a check: each a place in a file, with what should be there and what is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import msgspec

from haptera.errors import CorruptionError, MissingKey, NewerFormat, StorageError, WrongKey

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FINDINGS_MAX", "Finding", "Findings"]

#: Findings that are listed. A file full of noise has one for each of its records, and a person reads the first few.
FINDINGS_MAX: Final = 1000

#: damage: bytes differ from the written ones. wrong_key: the keyring lacks the key of a file. newer_format: a newer
#: version wrote it. unreadable: the operating system does not give the bytes. torn_tail: a write that a crash cut, and
#: that the next start cuts off. left_over: a file that a crash left, which means nothing.
Kind = Literal["damage", "wrong_key", "newer_format", "unreadable", "torn_tail", "left_over"]

_HARMLESS: Final = frozenset({"torn_tail", "left_over"})


class Finding(msgspec.Struct, frozen=True):
    """One finding. `offset` is in bytes from the beginning of `file`; `expected` and `actual` are for people."""

    kind: Kind
    file: str
    offset: int
    expected: str
    actual: str

    @property
    def harmless(self) -> bool:
        """Whether a crash may leave this, so that it is no damage."""
        return self.kind in _HARMLESS

    @classmethod
    def left_over(cls, file: str) -> Finding:
        """A file that was being made when a crash came."""
        return cls("left_over", file, 0, "no such file", "a file whose making was cut short, which means nothing")

    @classmethod
    def of(cls, error: StorageError, file: str) -> Finding:
        """The finding that an error stands for; `file` is where it was met if it does not say so itself."""
        match error:
            case CorruptionError():
                return cls("damage", error.file, error.offset, str(error.expected), str(error.actual))
            case WrongKey():
                if error.kind != "data key":
                    return cls("wrong_key", error.file, 0, f"the {error.kind} {error.expected}", error.actual)
                expected = f"a key of the keyring ({error.actual}){error.hint and f'; {error.hint}'}"
                return cls("wrong_key", error.file, 0, expected, f"key {error.expected}")
            case MissingKey():
                return cls("wrong_key", error.file, 0, "the keys of the data beside it", "nothing")
            case NewerFormat():
                file, expected = error.file or file, f"format {error.supported} or older"
                return cls("newer_format", file, 0, expected, f"format {error.found}")
            case _:
                return cls("unreadable", file, 0, "bytes that can be read", str(error))


class Findings:
    """The findings of one check, at most FINDINGS_MAX of them; `omitted` counts the others.

    `damaged` says whether there is one that no crash leaves.
    """

    def __init__(self) -> None:
        self.omitted: int = 0
        self.damaged: bool = False
        self._list: list[Finding] = []

    def __iter__(self) -> Iterator[Finding]:
        return iter(self._list)

    def __len__(self) -> int:
        return len(self._list)

    @property
    def lacking_key(self) -> Finding | None:
        """The first file under a key that the keyring does not hold; None where there is none."""
        return next((finding for finding in self._list if finding.kind == "wrong_key"), None)

    def add(self, finding: Finding) -> None:
        self.damaged = self.damaged or not finding.harmless
        if len(self._list) < FINDINGS_MAX:
            self._list.append(finding)
        else:
            self.omitted += 1

    def add_error(self, error: StorageError, file: str) -> None:
        """Add the finding that an error stands for, met in `file`."""
        self.add(Finding.of(error, file))
