"""Two connections do what the transcripts beside this file say.

`make test ARGS="-n0 --rewrite tests/interaction"` writes them as the connections behave now. The difference is reviewed
like any other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.interaction.scenario import run, scenarios

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("path", scenarios(), ids=lambda path: str(path.stem))
def test_a_scenario(path: Path, pytestconfig: pytest.Config) -> None:
    expected = path.read_text(encoding="utf-8")
    transcript = run(expected)
    if pytestconfig.getoption("rewrite"):
        path.write_text(transcript, encoding="utf-8")
    else:
        assert transcript == expected


def test_a_scenario_that_went_otherwise_is_noticed() -> None:
    text = 'connect\n----\n\ndialer request s m "x"\n----\nstream 3\n'
    assert run(text) == text.replace("stream 3", "stream 1")
    assert run(run(text)) == run(text)


def test_a_command_without_its_dashes_is_refused() -> None:
    with pytest.raises(AssertionError, match="no line of dashes"):
        run("connect\nstatus\n")
