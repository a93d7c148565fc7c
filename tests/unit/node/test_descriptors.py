"""How many connections leave descriptors for the log (protocol, section 8)."""

from __future__ import annotations

import resource

import pytest

from haptera.node.descriptors import RESERVED, connections_max, raise_limit


@pytest.mark.parametrize(
    ("limit", "listeners", "expected"),
    [
        (resource.RLIM_INFINITY, 1, 10_000),
        (1_048_576, 1, 10_000),
        (1_048_576, 8, 10_000),
        (1024, 1, 768),
        (1024, 2, 384),
        (1024, 0, 768),  # an embedded node
        (256, 1, 153),
        (RESERVED, 1, 1),
        (16, 1, 1),
    ],
)
def test_connections_are_as_many_as_wanted_or_as_there_can_be(
    limit: int, listeners: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert connections_max(10_000, listeners) == expected
    if limit != resource.RLIM_INFINITY and limit > 2 * RESERVED:
        assert expected * max(1, listeners) * 5 // 4 <= limit - RESERVED, "those that are being refused fit as well"


@pytest.mark.parametrize("refused", [None, ValueError, OSError])
def test_the_soft_limit_is_raised_to_the_hard_one_where_the_system_lets_it(
    refused: type[Exception] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []

    def setrlimit(_: int, limits: tuple[int, int]) -> None:
        asked.append(limits)
        if refused is not None:
            raise refused

    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    raise_limit()
    assert asked == [(4096, 4096)]
