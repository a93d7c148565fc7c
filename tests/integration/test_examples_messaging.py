"""The complete programs under examples/ that use the messaging library do what they say."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING

from haptera.testing import run
from tests.support.processes import without_slow_turns

if TYPE_CHECKING:
    import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

HUB = [
    "hub: the panel has seen enough",
    "hub: boiler on",
    "hub: boiler off",
    "hub: boiler on",
    "hub: boiler off",
]
PANEL = [
    "panel: kitchen 21.5, attic 12.0",
    "panel: error 10001 NO_SUCH_ROOM, not_applied: cellar",
    "panel: kitchen was 21.5, 20.0, 19.5",
    "panel: loaded 3",
    "panel: shows warming up the attic",
    "panel: too slow, DEADLINE_EXCEEDED",
    "panel: shows warming up the kitchen",
    "panel: cancelled",
    "panel: good night, kitchen at 23.0, attic at 12.0",
]


def start(name: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-X", "dev", str(EXAMPLES / name), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(program: subprocess.Popen[str]) -> list[str]:
    output, errors = program.communicate()
    assert program.returncode == 0, errors
    assert not without_slow_turns(errors)
    return output.splitlines()


def load_main(name: str) -> Callable[[list[str]], Coroutine[object, object, None]]:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    main: Callable[[list[str]], Coroutine[object, object, None]] = module.main
    return main


def test_smart_home(capsys: pytest.CaptureFixture[str]) -> None:
    # On virtual time: the example has a deadline, and a busy machine may not decide what is printed.
    run(load_main("smart_home")([]))
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("hub:")] == HUB
    assert [line for line in lines if line.startswith("panel:")] == PANEL
    assert len(lines) == len(HUB) + len(PANEL)


def test_smart_home_in_two_processes(short_path: Path) -> None:
    url = f"haptera+unix://{short_path / 'home.sock'}"
    hub = start("smart_home.py", "hub", url)
    try:
        while not (short_path / "home.sock").exists():
            assert hub.poll() is None, hub.communicate()
            time.sleep(0.01)
        # All but what has a deadline, on which a busy machine has its own opinion.
        late = {"panel: shows warming up the attic"}
        assert [line for line in end(start("smart_home.py", "panel", url)) if line not in late] == [
            line for line in PANEL if line not in late
        ]
        said = end(hub)
        assert said[0] == HUB[0]
        assert set(said) == set(HUB)
    finally:
        hub.kill()
        hub.communicate()


def test_smart_home_says_how_it_is_used() -> None:
    program = start("smart_home.py", "panel")
    output, errors = program.communicate()
    assert program.returncode == 1
    assert not output
    assert "python examples/smart_home.py hub   URL" in errors


def test_a_panel_without_a_hub_says_so(short_path: Path) -> None:
    program = start("smart_home.py", "panel", f"haptera+unix://{short_path}/none.sock")
    output, errors = program.communicate()
    assert program.returncode == 1
    assert not output
    assert errors.endswith(f"cannot connect to {short_path}/none.sock: No such file or directory\n")
    assert "Traceback" not in errors


def test_a_hub_that_is_interrupted_ends_quietly(short_path: Path) -> None:
    hub = start("smart_home.py", "hub", f"haptera+unix://{short_path / 'home.sock'}")
    while not (short_path / "home.sock").exists():
        assert hub.poll() is None, hub.communicate()
        time.sleep(0.01)
    hub.send_signal(signal.SIGINT)
    output, errors = hub.communicate()
    assert hub.returncode == 130
    assert not output
    assert "Traceback" not in errors


def test_sqlite_rows() -> None:
    assert end(start("sqlite_rows.py")) == [
        "sensor 3: 19.95",
        "sensor 99: 10001 NO_SUCH_SENSOR",
        "the client pauses after 10 rows, and the server reads no further",
        "the client left after 10000 rows",
        "the server closed its cursor before the end: True",
        "another call brought the other 10000 rows; each came once: True",
    ]
