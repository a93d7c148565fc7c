"""How a command's process ends, whatever happens in it."""

from __future__ import annotations

import pytest

from haptera.cli import main


def test_a_mistake_of_the_program_does_not_look_like_an_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(**_: object) -> None:
        raise ZeroDivisionError("a mistake")

    monkeypatch.setattr(main.group, "main", broken)
    with pytest.raises(SystemExit) as ended:
        main.main(["get", "k"])
    assert ended.value.code == 5
    assert "ZeroDivisionError: a mistake" in capsys.readouterr().err
