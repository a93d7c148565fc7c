"""What ``listen`` and ``dial`` may be told, and how long a call may take: everything else is refused at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from haptera import dial, listen
from haptera.connection import Budget
from haptera.connection.bounds import BOUNDS, Bound
from haptera.errors import ConfigurationError
from haptera.node.config import OPTIONS, NodeConfig
from haptera.node.listening import settings
from haptera.testing import connected_peers, virtual_clock
from haptera.wire.payload import Limits
from tests.unit.peer.hosts import ANY_PORT, Echo, served

OF_BOTH: dict[str, list[Any]] = {
    "write_timeout_s": [0, -1, "x", math.nan, math.inf, 10**9, True, [1.0]],
    "idle_timeout_s": [0, -1, "60", math.nan, math.inf],
    "handshake_timeout_s": [0, -1, "5", math.nan],
    "frame_timeout_s": [0, 0.0, -1, "x", math.nan],
    "message_timeout_s": [0, -1, math.inf],
    "ping_interval_ms": [-1, 0.5, 10**12, "x", math.nan, math.inf, False],
    "budget": [0, -1, 1000, "64M", 2**50],
    "idle_frames_burst": [0, -1, 1.5, "x", 10**9],
    "idle_frames_per_s": [0, -1, math.nan, math.inf, "x"],
    "idempotency_ms": [-1, 2**32, "x"],
    "compression": ["zstd", "none", 0, 1],
    "limits": [64, {"max_frame": 65536}, Limits(max_frame=1), Limits(max_streams=10**9), Limits(max_message="1M")],  # type: ignore[arg-type]
}
OF_LISTEN: dict[str, list[Any]] = {
    "max_connections": [0, -1, 1.5, "10", 10**9, math.nan],
    "max_half_open": [0, -1, "x", math.inf],
    "mode": [-1, 0o1000, "600", 1.5],
    "process_budget": [0, 2**30],
}


def every(table: dict[str, list[Any]]) -> list[tuple[str, Any]]:
    return [(name, value) for name, values in table.items() for value in values]


async def refused(open_: Callable[..., Any], url: str, name: str, value: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        await open_(url, **{name: value})
    text = str(caught.value)
    assert text.startswith(f"{url}: {name}: ")
    assert "expected " in text
    shown = next((getattr(value, limit) for limit in BOUNDS if limit in text and isinstance(value, Limits)), value)
    assert text.endswith(f", not {shown!r}")


@virtual_clock
@pytest.mark.parametrize(("name", "value"), [*every(OF_BOTH), *every(OF_LISTEN)])
async def test_a_listener_is_not_told_nonsense(name: str, value: object) -> None:
    await refused(listen, ANY_PORT, name, value)


@virtual_clock
@pytest.mark.parametrize(("name", "value"), every(OF_BOTH))
async def test_who_dials_is_not_told_nonsense(name: str, value: object) -> None:
    """And learns it before anybody is dialled: nobody listens there."""
    await refused(dial, "haptera://127.0.0.1:1", name, value)


@virtual_clock
async def test_an_error_says_what_it_may_be() -> None:
    with pytest.raises(ConfigurationError, match=r"max_connections: expected a whole number from 1 to 1000000, not 0$"):
        await listen(ANY_PORT, max_connections=0)
    with pytest.raises(
        ConfigurationError, match="ping_interval_ms: expected a whole number from 1 to 86400000, or 0, not"
    ):
        await listen(ANY_PORT, ping_interval_ms=10**12)
    with pytest.raises(
        ConfigurationError, match=r"limits: max_frame: expected a whole number from 16384 to 16777216, not 1$"
    ):
        await listen(ANY_PORT, limits=Limits(max_frame=1))


@virtual_clock
async def test_a_keyword_that_there_is_not_is_a_mistake_in_the_program() -> None:
    with pytest.raises(TypeError, match="ping_intervall_ms"):
        await listen(ANY_PORT, ping_intervall_ms=1000)  # type: ignore[call-arg]


@virtual_clock
async def test_what_is_within_its_bounds_is_taken() -> None:
    for name, bound in BOUNDS.items():
        if name in Limits.__struct_fields__:
            keywords: list[dict[str, Any]] = [{"limits": Limits(**{name: int(at)})} for at in (bound.low, bound.high)]
        else:
            keywords = [{name: at} for at in (bound.low, bound.high, *([0] if bound.zero else []))]
        for keyword in keywords:
            async with served(ANY_PORT, Echo(), **keyword) as server:
                of_both = name in OF_BOTH or "limits" in keyword
                async with dial(server.url, **(keyword if of_both else {})) as peer:
                    assert await peer.call("echo", "one", b"x") == b"x"
    async with served(ANY_PORT, Echo(), idle_timeout_s=None, process_budget=Budget(), compression=False):
        pass


def test_a_node_has_the_same_bounds() -> None:
    """What its options may be, its listeners may be told, and no more."""
    units = {"ping_interval": 1000}
    for name, keyword in {
        "max_connections": "max_connections",
        "max_half_open": "max_half_open",
        "handshake_timeout": "handshake_timeout_s",
        "ping_interval": "ping_interval_ms",
        "idle_timeout": "idle_timeout_s",
        "write_timeout": "write_timeout_s",
        "frame_timeout": "frame_timeout_s",
        "message_timeout": "message_timeout_s",
        "connection_budget": "budget",
        "flood_burst": "idle_frames_burst",
        "flood_rate": "idle_frames_per_s",
        **{limit: limit for limit in Limits.__struct_fields__},
    }.items():
        bound, unit = BOUNDS[keyword], units.get(name, 1)
        for at in (bound.low / unit, bound.high / unit):
            assert OPTIONS[name](at if not bound.whole or unit > 1 else int(at)) == at
            assert OPTIONS[name](f"{at:.0f}" if at >= 1 else str(at)) == at
        for beyond in (bound.high / unit + 1, -1, math.nan):
            with pytest.raises(ValueError, match="expected "):
                OPTIONS[name](beyond)
    given = settings(NodeConfig())
    assert {name for name in given if name not in BOUNDS} == {"limits", "compression"}


def test_a_bound_says_what_it_is() -> None:
    assert str(Bound(low=1, high=5)) == "a whole number from 1 to 5"
    assert str(Bound(low=0.5, high=2.5, whole=False, zero=True)) == "a number from 0.5 to 2.5, or 0"
    assert Bound(low=1, high=5).check(2.0) == 2
    assert type(Bound(low=1, high=5).check(2.0)) is int
    assert type(Bound(low=1, high=5, whole=False).check(2)) is float


# -- how long a call may take ---------------------------------------------------------------------------------------

WRONG_TIMEOUTS: list[tuple[Any, type[Exception], str]] = [
    (math.nan, ValueError, "timeout is a number of seconds above 0, not nan"),
    (-1, ValueError, "timeout is a number of seconds above 0, not -1"),
    (-math.inf, ValueError, "timeout is a number of seconds above 0, not -inf"),
    (0.0, ValueError, "timeout is a number of seconds above 0, not 0.0"),
    ("x", TypeError, "timeout is a number of seconds or None, not str"),
    (True, TypeError, "timeout is a number of seconds or None, not bool"),
    ([1.0], TypeError, "timeout is a number of seconds or None, not list"),
]


@virtual_clock
@pytest.mark.parametrize(("timeout", "error", "says"), WRONG_TIMEOUTS)
async def test_a_timeout_is_a_number_of_seconds(timeout: Any, error: type[Exception], says: str) -> None:
    async with connected_peers([], [Echo()]) as connected:
        peer = connected.dialer
        await peer.ready()
        received = connected.acceptor.requests_received
        with pytest.raises(error, match=says):
            await peer.call("echo", "one", b"x", timeout=timeout)
        with pytest.raises(error, match=says):
            peer.stream("echo", "many", b"3", timeout=timeout)
        with pytest.raises(error, match=says):
            await peer.request("echo", "one", b"x", timeout=timeout)
        with pytest.raises(error, match=says):
            await dial("haptera://127.0.0.1:1", timeout=timeout)
        assert await peer.call("echo", "one", b"x") == b"x"
        assert connected.acceptor.requests_received == received + 1
        await peer.aclose()
        with pytest.raises(error, match=says):
            await peer.call("echo", "one", b"x", timeout=timeout)


@virtual_clock
async def test_no_timeout_and_one_without_end_are_no_limit() -> None:
    async with connected_peers([], [Echo()]) as (peer, _):
        for timeout in (None, math.inf, 1e18, 5, 0.5):
            assert await peer.call("echo", "one", b"x", timeout=timeout) == b"x"
            assert [item async for item in peer.stream("echo", "many", b"2", timeout=timeout)] == [b"0", b"1"]


@pytest.mark.parametrize(
    ("services", "said"),
    [
        ([Echo], r"services has the class Echo; host an instance, Echo\(\)"),
        (Echo(), "services is a list of services, not <"),
        (Echo, "services is a list of services, not <class"),
        (None, "services is a list of services, not None"),
        ((service for service in [Echo()]), "services is a list of services, not <generator"),
        (["echo"], "services has 'echo', which is no haptera.Service"),
        ("echo", "services has 'e', which is no haptera.Service"),
    ],
)
@pytest.mark.parametrize("open_", [listen, dial])
@virtual_clock
async def test_what_is_no_service_is_not_hosted(open_: Any, services: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        await open_(ANY_PORT, services=services)
