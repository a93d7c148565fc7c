"""The tool that names the files that a call passes sees both sides of it, and the same files each time."""

from __future__ import annotations

import pytest

from tools import call_files


@pytest.fixture(params=call_files.CALLS)
def shown(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> tuple[str, list[str]]:
    """A call, and the files that the tool shows for it."""
    assert call_files.main([request.param]) == 0
    return request.param, [line.split()[1].rstrip(":") for line in capsys.readouterr().out.splitlines()]


def test_both_sides_are_seen_and_the_same_files_each_time(
    shown: tuple[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    call, files = shown
    assert len(set(files)) == len(files)
    sides = {
        "echo": ("peer/outgoing_calls.py", "peer/dispatcher.py"),
        "set": ("client/calls/key_calls.py", "storage/log.py"),
    }
    caller, responder = map(files.index, sides[call])
    assert caller < responder
    assert not any(path.startswith("testing/") for path in files)
    assert call_files.main([call, "--count"]) == 0
    assert capsys.readouterr().out == f"{len(files)}\n"
