"""The fuzz targets on the corpus that they start from, and on a few mutations of it (docs/fuzzing.md)."""

from __future__ import annotations

import zlib
from random import Random
from typing import TYPE_CHECKING

import pytest

from fuzz.make_corpus import FOUND, MAKERS, make
from fuzz.mutators import mutate_plain
from fuzz.run import CORPUS, run_plain
from fuzz.targets import TARGETS, Target

if TYPE_CHECKING:
    from pathlib import Path

    from fuzz.mutators import Mutator

MUTATIONS = 100


def inputs(name: str) -> list[Path]:
    return sorted((CORPUS / name).glob("*.bin"))


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_holds_no_finding(name: str) -> None:
    assert inputs(name)
    for path in inputs(name):
        try:
            TARGETS[name].check(path.read_bytes())
        except Exception as error:
            error.add_note(f"the input is {path}")
            raise


@pytest.mark.parametrize("name", TARGETS)
def test_mutations_of_the_corpus_are_no_findings(name: str) -> None:
    random = Random(zlib.crc32(name.encode()))
    target = TARGETS[name]
    corpus = [path.read_bytes() for path in inputs(name)]
    for _ in range(MUTATIONS):
        data = target.mutate(
            random.choice(corpus), target.size_max, random, lambda data, size: mutate_plain(data, size, random)
        )
        assert len(data) <= target.size_max
        try:
            target.check(data)
        except Exception as error:
            error.add_note(f"the input is {data.hex()}")
            raise


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_at_all_is_an_input_too(name: str) -> None:
    TARGETS[name].check(b"")


def test_each_target_has_a_corpus_and_each_corpus_a_target() -> None:
    assert set(TARGETS) == set(MAKERS) == {path.name for path in CORPUS.iterdir()}


def test_the_corpus_is_made_the_same_in_each_run() -> None:
    first = make()
    assert first == make()
    assert not [path for path in first if path.name.startswith(FOUND)]


def planted(data: bytes) -> None:
    """A check that finds something in every input with a certain byte."""
    if b"\xff" in data[4:]:
        raise ValueError("planted")


@pytest.mark.parametrize("mutate", dict.fromkeys(target.mutate for target in TARGETS.values()))
def test_a_finding_is_kept_and_can_be_run_again(mutate: Mutator, tmp_path: Path) -> None:
    assert run_plain("acceptor", Target(planted, mutate), 60.0, tmp_path, seed=1) == 1
    (kept,) = tmp_path.iterdir()
    assert kept.name.startswith("crash-")
    with pytest.raises(ValueError, match="planted"):
        planted(kept.read_bytes())


def test_without_a_finding_it_runs_for_its_time(tmp_path: Path) -> None:
    assert run_plain("metadata", TARGETS["metadata"], 0.05, tmp_path, seed=1) == 0
    assert not list(tmp_path.iterdir())
