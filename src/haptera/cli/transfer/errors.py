"""Errors of a file that is imported."""

from __future__ import annotations


class BadRow(Exception):
    """One row cannot be stored, for the reason that this gives; later rows may be."""


class BadFile(Exception):
    """The file cannot be read on. ``place`` is the number of the line (or item) that says so, from 1."""

    def __init__(self, place: int, reason: str, unit: str = "line") -> None:
        super().__init__(f"{unit} {place}: {reason}")
        self.place = place


class WrongFile(BadFile):
    """The file holds no rows at all. ``reason`` names the kind of file."""

    def __init__(self, reason: str) -> None:
        super().__init__(1, reason)
        self.args: tuple[str] = (reason,)


class ChangedFile(BadFile):
    """The rows up to ``place``, which are stored already, are no longer those of the file."""

    def __init__(self, place: int, unit: str) -> None:
        super().__init__(place, "the file has changed: the rows up to here are not the ones that are stored", unit)
