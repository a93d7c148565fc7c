"""The fixtures of the pytest plugin (`haptera.testing.plugin`): a fresh node, its URL, a client and a proxy."""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from haptera.client import Database
    from haptera.node import Node
    from haptera.testing import NodeUrl, Proxy

# Where pytest-asyncio is in use it is loaded by now; in its strict mode it takes only fixtures that are marked as its
# own. Without it these are coroutines that some other plugin may know how to run.
_asyncio_plugin = sys.modules.get("pytest_asyncio")

#: The loops of pytest-asyncio. A fixture has to run on the loop of its test, so there is one of each kind for each.
LOOP_SCOPES: Final = ("function", "class", "module", "package", "session")


def _define(scope: str) -> None:
    """Make the fixtures for the tests of one loop: functions of their own, which pytest-asyncio marks with it."""

    async def node(request: pytest.FixtureRequest) -> AsyncIterator[NodeUrl]:
        from haptera.testing import nodes  # noqa: PLC0415  # only a test that asks for a node needs it

        async with nodes.node(**_options(request)) as url:
            yield url

    async def db(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
        from haptera.client import connect  # noqa: PLC0415

        async with connect(_on_loop(request, "node")) as made:
            yield made

    async def proxy(request: pytest.FixtureRequest) -> AsyncIterator[Proxy]:
        from haptera.testing import proxies  # noqa: PLC0415

        async with proxies.proxy(_on_loop(request, "node")) as made:
            yield made

    for function in (node, db, proxy):
        name = f"_haptera_{function.__name__}_{scope}"
        if _asyncio_plugin is None:
            globals()[name] = pytest.fixture(function, name=name)
        else:
            globals()[name] = _asyncio_plugin.fixture(function, name=name, loop_scope=scope)


for _scope in LOOP_SCOPES:
    _define(_scope)


@pytest.fixture
def _haptera_node_in_thread(request: pytest.FixtureRequest) -> Iterator[str]:
    from haptera.testing.nodes import node_in_thread  # noqa: PLC0415

    with node_in_thread(**_options(request)) as url:
        yield url


@pytest.fixture
def haptera_url(request: pytest.FixtureRequest) -> str:
    """The URL of a fresh node, served on the test's loop, or by a thread if the test is not a coroutine."""
    url: str = (
        _on_loop(request, "node") if _is_coroutine(request) else request.getfixturevalue("_haptera_node_in_thread")
    )
    return url


@pytest.fixture
def haptera_node(request: pytest.FixtureRequest) -> Node:
    """The node behind ``haptera_url``."""
    node: Node = _on_loop(request, "node").node
    return node


@pytest.fixture
def haptera_db(request: pytest.FixtureRequest) -> Database:
    """A client of the node behind ``haptera_url``."""
    db: Database = _on_loop(request, "db")
    return db


@pytest.fixture
def haptera_proxy(request: pytest.FixtureRequest) -> Proxy:
    """A proxy in front of the node behind ``haptera_url``."""
    made: Proxy = _on_loop(request, "proxy")
    return made


def _on_loop(request: pytest.FixtureRequest, kind: str) -> Any:
    """The value of a fixture of this module on the loop of the test. The node is there before its users: a loop that
    runs a fixture cannot run another one within it.
    """
    scope = _loop_scope(request)
    node = request.getfixturevalue(f"_haptera_node_{scope}")
    return node if kind == "node" else request.getfixturevalue(f"_haptera_{kind}_{scope}")


def _loop_scope(request: pytest.FixtureRequest) -> str:
    """Which loop pytest-asyncio runs the test on: as its marker says, else the configuration."""
    marker = request.node.get_closest_marker("asyncio")
    options = {} if marker is None else marker.kwargs
    try:
        usual = request.config.getini("asyncio_default_test_loop_scope")
    except (KeyError, ValueError):  # without the plugin, or an old one
        usual = None
    return str(options.get("loop_scope") or options.get("scope") or usual or LOOP_SCOPES[0])


def _options(request: pytest.FixtureRequest) -> dict[str, Any]:
    marker = request.node.get_closest_marker("haptera")
    return {} if marker is None else dict(marker.kwargs)


def _is_coroutine(request: pytest.FixtureRequest) -> bool:
    function = request.function
    # Hypothesis puts a plain function around the test.
    return inspect.iscoroutinefunction(getattr(getattr(function, "hypothesis", None), "inner_test", function))
