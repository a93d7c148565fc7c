"""Fails each test after which a planted secret stands where none may stand (`tests/support/planted.py`).

Looked at are the captured output and log records of each test, what commands and nodes write, the arguments of each
process that a test starts, and every file of a data directory: its audit log, its reports, and its encrypted files, so
that no value stands in the clear. The files from which a test gives a secret stand outside of data directories.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.support.planted import found_in

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from pathlib import Path

#: The file by which a data directory is known.
_OF_DATA: Final = "node.toml"
#: Bytes of one file that are read: more than any of a test has that is not empty.
_READ_MAX: Final = 4 * 1024 * 1024
#: The fixtures of folders, whose contents are looked at.
_FOLDERS: Final = ("tmp_path", "short_path")


class Leaks:
    """The plugin. `see` is for helpers that read output which pytest does not capture."""

    def __init__(self) -> None:
        self._found: list[str] = []

    def see(self, place: str, text: bytes | str, *, values: bool = True) -> None:
        """Look at some output; without ``values`` stored ones may stand in it."""
        data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
        self._found += [f"{place}: {each}" for each in found_in(data, values=values)]

    def see_arguments(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Look at the arguments of a process that starts: an audit hook of Python."""
        if event == "subprocess.Popen":
            self.see("arguments", b" ".join(map(os.fsencode, _listed(arguments[1]))))

    def see_folders(self, folders: Iterable[Path]) -> None:
        """Look at the files of the data directories in some folders."""
        for folder in folders:
            for marked in folder.rglob(_OF_DATA):
                for file in marked.parent.rglob("*"):
                    if file.is_file() and not file.is_symlink():
                        self.see(str(file), _read(file))

    def take(self) -> list[str]:
        """Return what was found, and forget it."""
        found, self._found = self._found, []
        return found

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None]:
        """Look at the folders before their fixtures remove them."""
        arguments = getattr(item, "funcargs", {})
        self.see_folders(arguments[name] for name in _FOLDERS if name in arguments)
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Make a failure of a test that has shown a secret."""
        report = yield
        if report.when == "teardown":
            for name, text in report.sections:
                self.see(name, text)
            found = self.take()
            if found and report.passed:
                report.outcome = "failed"
                report.longrepr = "a planted secret is shown:\n" + "\n".join(found[:10])
        return report


def _listed(arguments: Any) -> list[str | bytes]:
    return [arguments] if isinstance(arguments, str | bytes) else [os.fspath(each) for each in arguments]


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(_READ_MAX)
    except OSError:
        return b""  # it is gone, or a test has taken its mode away


leaks: Final = Leaks()
sys.addaudithook(leaks.see_arguments)
