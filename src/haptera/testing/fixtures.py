"""The fixtures of the pytest plugin (`haptera.testing.plugin`)."""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from haptera.client import Database
    from haptera.node.node import Node
    from haptera.testing import NodeUrl, Proxy

# Where pytest-asyncio is in use it is loaded by now; in its strict mode it takes only fixtures that are marked as its
# own. Without it these are coroutines that some other plugin may know how to run.
_asyncio_plugin = sys.modules.get("pytest_asyncio")
_async_fixture: Callable[..., Any] = pytest.fixture if _asyncio_plugin is None else _asyncio_plugin.fixture


@_async_fixture
async def _haptera_node_here(request: pytest.FixtureRequest) -> AsyncIterator[NodeUrl]:
    from haptera.testing.nodes import node  # noqa: PLC0415  # what only a test that asks for it needs

    async with node(**_options(request)) as url:
        yield url


@pytest.fixture
def _haptera_node_in_thread(request: pytest.FixtureRequest) -> Iterator[str]:
    from haptera.testing.nodes import node_in_thread  # noqa: PLC0415

    with node_in_thread(**_options(request)) as url:
        yield url


@pytest.fixture
def haptera_url(request: pytest.FixtureRequest) -> str:
    """The URL of a fresh node, served on the test's loop, or by a thread if the test is not a coroutine."""
    here = _is_coroutine(request)
    url: str = request.getfixturevalue("_haptera_node_here" if here else "_haptera_node_in_thread")
    return url


@_async_fixture
async def haptera_node(_haptera_node_here: NodeUrl) -> Node:
    """The node behind ``haptera_url``."""
    return _haptera_node_here.node


@_async_fixture
async def haptera_db(_haptera_node_here: NodeUrl) -> AsyncIterator[Database]:
    """A client of the node behind ``haptera_url``."""
    from haptera.client import connect  # noqa: PLC0415

    async with connect(_haptera_node_here) as db:
        yield db


@_async_fixture
async def haptera_proxy(_haptera_node_here: NodeUrl) -> AsyncIterator[Proxy]:
    """A proxy in front of the node behind ``haptera_url``."""
    from haptera.testing.proxies import proxy  # noqa: PLC0415

    async with proxy(_haptera_node_here) as made:
        yield made


def _options(request: pytest.FixtureRequest) -> dict[str, Any]:
    marker = request.node.get_closest_marker("haptera")
    return {} if marker is None else dict(marker.kwargs)


def _is_coroutine(request: pytest.FixtureRequest) -> bool:
    function = request.function
    # Hypothesis puts a plain function around the test.
    return inspect.iscoroutinefunction(getattr(getattr(function, "hypothesis", None), "inner_test", function))
