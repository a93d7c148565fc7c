"""The registry of metrics."""

from __future__ import annotations

import pytest

from haptera.node.metrics import COUNTERS, GAUGES, Metrics
from tests.unit.node.nodes import opened


def test_counters_start_at_zero_and_gauges_are_asked_when_read() -> None:
    metrics = Metrics()
    keys = [1]
    metrics.measure({"keys": lambda: keys[0]})
    assert metrics.values() == dict.fromkeys(COUNTERS, 0) | {"keys": 1}
    metrics.kv_reads_total += 3
    keys[0] = 2
    assert (metrics.values()["kv_reads_total"], metrics.values()["keys"]) == (3, 2)


def test_a_name_that_is_not_registered_is_refused() -> None:
    with pytest.raises(ValueError, match="not the name of a gauge"):
        Metrics().measure({"key": lambda: 0})
    with pytest.raises(AttributeError):
        Metrics().kv_raeds_total = 1  # type: ignore[attr-defined]


async def test_a_node_measures_every_gauge() -> None:
    async with opened() as node:
        assert set(node.metrics.values()) == {*COUNTERS, *GAUGES}
