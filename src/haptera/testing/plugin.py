"""The pytest plugin: names the fixtures that `fixtures` makes, and their marker. pytest loads it by itself.

    haptera_url     the node's URL; also in a test that is no coroutine, where the node has a thread of its own
    haptera_node    the node itself, on the test's loop
    haptera_db      a client of the node: ``haptera.Database``
    haptera_proxy   a proxy in front of the node: ``haptera.testing.Proxy``

All in one test belong to the same node. ``@pytest.mark.haptera(storage="memory", listen="tcp", …)`` says how it is
made. It takes the keywords of ``haptera.testing.node``.

Nothing but pytest is imported before a fixture is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker, and the fixtures in the form that the async plugin at hand expects."""
    config.addinivalue_line("markers", "haptera(**options): how haptera.testing.node makes the node of the fixtures")
    config.pluginmanager.register(importlib.import_module("haptera.testing.fixtures"), "haptera-fixtures")
