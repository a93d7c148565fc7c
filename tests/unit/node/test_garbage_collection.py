"""When Python's garbage collector looks at all objects of a process that is a node."""

from __future__ import annotations

import gc

import pytest

from haptera.node.garbage_collection import ENDED_CONNECTIONS_MAX, MIDDLE_COLLECTIONS, YOUNG_COLLECTIONS, Collector


@pytest.fixture
def collections(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls of the collector, in order."""
    asked: list[str] = []
    monkeypatch.setattr(gc, "collect", lambda: asked.append("collect"))
    monkeypatch.setattr(gc, "freeze", lambda: asked.append("freeze"))
    monkeypatch.setattr(gc, "set_threshold", lambda *limits: asked.append(f"after {limits}"))
    return asked


def test_what_there_is_is_frozen_behind_a_full_collection(collections: list[str]) -> None:
    youngest = gc.get_threshold()[0]
    Collector().take_over(lambda: collections.append("prepare"))
    limits = (youngest, YOUNG_COLLECTIONS, MIDDLE_COLLECTIONS)
    assert collections == ["collect", "prepare", "freeze", "collect", f"after {limits}"]


def test_connections_that_have_ended_are_collected_before_they_are_many(collections: list[str]) -> None:
    collector = Collector()
    collector.take_over(lambda: None)
    collections.clear()
    for ended in range(1, 3 * ENDED_CONNECTIONS_MAX):
        collector.connection_ended()
        assert len(collections) == ended // ENDED_CONNECTIONS_MAX


def test_a_program_with_a_store_in_it_keeps_its_own_collector(collections: list[str]) -> None:
    collector = Collector()
    for _ in range(2 * ENDED_CONNECTIONS_MAX):
        collector.connection_ended()
    assert collections == []
