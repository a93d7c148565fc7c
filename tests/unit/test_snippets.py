"""The snippets that try the names of files are fair, and the same for the same seed; their places stand apart."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest

from tools import snippets

if TYPE_CHECKING:
    from pathlib import Path

FILE = '''"""A module."""

from a import (
    b,
    c,
    d,
)

__all__ = ["f"]


class A:
    """A class."""

    __slots__ = ("g",)

    def f(self) -> int:
        """Return it."""
        # Why.
        first = 1

        return (
            first
        )
'''


@pytest.fixture
def some_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has a tenth of the sources to draw from: to read all of them takes 3 seconds."""
    chosen = snippets.files()[::10]
    monkeypatch.setattr(snippets, "files", lambda: chosen)


def test_a_snippet_is_five_lines_of_code_of_which_one_is_a_statement_of_a_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snippets, "SOURCE", tmp_path)
    path = tmp_path / "f.py"
    path.write_text(FILE)
    found = snippets.snippets_of(path)
    assert [snippet.text.splitlines()[-1].strip() for snippet in found] == ["first = 1", "return (", "first", ")"]
    assert all(len(snippet.text.splitlines()) == 5 for snippet in found)
    assert not any(
        word in snippet.text for snippet in found for word in ("module", "class.", "Why", "Return it", "import")
    )


@pytest.mark.usefixtures("some_files")
def test_a_seed_gives_the_same_snippets_and_the_key_alone_has_their_places(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "key"
    assert snippets.main(["--seed", "5", "--key", str(key)]) == 0
    first = capsys.readouterr().out
    places = [line.split()[1].rpartition(":") for line in key.read_text().splitlines()]
    assert len({path for path, _, _ in places}) == 20
    for number, (path, _, line) in enumerate(places, 1):
        written = (snippets.SOURCE / path).read_text().splitlines()[int(line) - 1]
        assert f"--- {number}\n{written}\n" in first
    assert not any(path in first for path, _, _ in places)
    assert snippets.main(["--seed", "5"]) == 0
    assert capsys.readouterr().out == first
    assert snippets.main(["--seed", "6"]) == 0
    assert capsys.readouterr().out != first


def test_the_files_to_choose_from_are_all_sources(capsys: pytest.CaptureFixture[str]) -> None:
    assert snippets.main(["--files"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert sorted(snippets.SOURCE / path for path in listed) == sorted(snippets.SOURCE.rglob("*.py"))


@pytest.mark.usefixtures("some_files")
def test_every_file_can_be_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    assert snippets.main(["--files"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert {snippet.path for snippet in snippets.draw(1, 30)} <= set(listed)
    assert all(ast.parse((snippets.SOURCE / path).read_text()) for path in listed[:3])
