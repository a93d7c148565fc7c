"""The registry of metrics."""

from __future__ import annotations

import pytest

from haptera.node.metrics import COUNTERS, MEASURED, Metrics
from haptera.node.services.kv import KvService
from tests.unit.node.nodes import opened

OF_LISTENERS = {
    name
    for name in MEASURED
    if name.startswith(("wire_", "connections", "half_open", "requests_in", "requests_rec", "tls_", "certificate_"))
}


def test_counters_start_at_zero_and_the_rest_is_asked_when_read() -> None:
    metrics = Metrics()
    keys = [1]
    metrics.measure({"keys": lambda: keys[0]})
    assert metrics.values() == dict.fromkeys(COUNTERS, 0) | {"keys": 1}
    metrics.kv_reads_total += 3
    keys[0] = 2
    assert (metrics.values()["kv_reads_total"], metrics.values()["keys"]) == (3, 2)


def test_requests_are_counted_by_method() -> None:
    metrics = Metrics()
    metrics.requests("kv", ["get", "set"])["get"] += 2
    metrics.requests("kv", ["get", "set"])["set"] += 1
    values = metrics.values()
    assert values['requests_total{method="kv.get"}'] == 2
    assert values['requests_total{method="kv.set"}'] == 1
    assert list(values) == sorted(values)


def test_errors_are_counted_by_code_once_they_occur() -> None:
    metrics = Metrics()
    assert not any("protocol_errors" in name for name in metrics.values())
    for code in (1002, 1002, 1015, 4242, 999_999):
        metrics.count_code("protocol_errors_total", code)
    assert {name: value for name, value in metrics.values().items() if "protocol_errors" in name} == {
        'protocol_errors_total{code="1002"}': 2,
        'protocol_errors_total{code="1015"}': 1,
        'protocol_errors_total{code="other"}': 2,
    }
    with pytest.raises(KeyError):
        metrics.count_code("requests_total", 1002)


def test_a_name_that_is_not_registered_is_refused() -> None:
    with pytest.raises(ValueError, match="not the name of a metric"):
        Metrics().measure({"key": lambda: 0})
    with pytest.raises(AttributeError):
        Metrics().kv_raeds_total = 1  # type: ignore[attr-defined]


async def test_a_node_without_listeners_measures_all_but_connections() -> None:
    async with opened() as node:
        assert set(node.metrics.values()) == {*COUNTERS, *MEASURED} - OF_LISTENERS


async def test_services_of_one_node_count_together() -> None:
    async with opened() as node:
        for service in [KvService(node.commands, node.metrics, node.watches) for _ in range(2)]:
            service._requests["get"] += 1
        assert node.metrics.values()['requests_total{method="kv.get"}'] == 2
