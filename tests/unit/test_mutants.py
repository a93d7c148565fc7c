"""The lists of mutants fit the sources; and in the long run, each is noticed by its tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tools import mutants
from tools.mutants import ROOT, Mutant, areas, fate, load, run, scratch

if TYPE_CHECKING:
    from pathlib import Path

MUTANTS = [mutant for area in areas() for mutant in load(area)]


def test_each_mutant_changes_one_place() -> None:
    """That it stays a program is seen when it is run: to compile hundreds of them here would take seconds."""
    assert MUTANTS
    for mutant in MUTANTS:
        assert mutant.source()
        for test in mutant.tests:
            path, *_ = test.split("::")
            assert (ROOT / path).exists(), (mutant.name, test)
    names = [(mutant.area, mutant.name) for mutant in MUTANTS]
    assert len(names) == len({*names})


def test_a_mutant_that_does_not_fit_the_sources_is_said() -> None:
    for before, after in (("there is no such text", ""), ("import", "export"), ('"""What', '"""What')):
        with pytest.raises(ValueError, match="area, 'name'"):
            Mutant("area", "name", "tests/unit/errors/test_errors.py", before, after, ()).source()


@pytest.mark.parametrize(
    ("body", "expected"), [("assert True", "SURVIVES"), ("assert False", "killed"), ("assert True)", "CANNOT RUN")]
)
def test_the_fate_of_a_mutant(tmp_path: Path, body: str, expected: str) -> None:
    (tmp_path / "test_it.py").write_text(f"def test_it():\n    {body}\n")
    assert run(["test_it.py"], tmp_path) == expected


def test_a_mutant_that_hangs_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutants, "TIMEOUT_S", 0)
    assert run(["tests"], tmp_path) == "hangs"


@pytest.mark.long
@pytest.mark.parametrize("area", areas())
def test_what_the_mutants_break_is_whole_without_them(area: str) -> None:
    tests = sorted({test for mutant in load(area) for test in mutant.tests})
    with scratch() as root:
        assert run(tests, root) == "SURVIVES"


@pytest.mark.long
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.area}: {mutant.name}")
def test_each_mutant_is_noticed(mutant: Mutant) -> None:
    assert fate(mutant) in {"killed", "hangs"}
