"""The watchdog of tests/conftest.py ends the test whose time is over, and no other."""

from __future__ import annotations

import queue
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_timeout  # type: ignore[import-untyped]

from tests.support import watchdog

OVER, LONG = SimpleNamespace(timeout=0.0), SimpleNamespace(timeout=3600.0)


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> queue.Queue[tuple[Any, Any]]:
    """The tests that pytest-timeout is told to end."""
    found: queue.Queue[tuple[Any, Any]] = queue.Queue()
    monkeypatch.setattr(pytest_timeout, "timeout_timer", lambda item, settings: found.put((item, settings)))
    return found


def test_a_test_whose_time_is_over_is_ended(
    ended: queue.Queue[tuple[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "LOOK_EVERY_S", 0.001)
    dog: Any = watchdog.Watchdog()
    dog.begin("one", OVER)
    assert ended.get(timeout=60) == ("one", OVER)
    dog.begin("another", OVER)
    assert ended.get(timeout=60) == ("another", OVER)


def test_a_test_that_has_time_or_has_ended_is_left_alone(
    ended: queue.Queue[tuple[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "LOOK_EVERY_S", 3600.0)
    dog: Any = watchdog.Watchdog()
    dog.begin("one that has time", LONG)
    dog.look()
    dog.begin("one that has ended", OVER)
    dog.end()
    dog.look()
    assert ended.empty()
    dog.begin("one that hangs", OVER)
    dog.look()
    dog.look()
    assert ended.get() == ("one that hangs", OVER)
    assert ended.empty()
