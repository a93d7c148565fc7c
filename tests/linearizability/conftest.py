from __future__ import annotations

import pytest

from tests.linearizability.porcupine import Checker, build


@pytest.fixture(scope="session")
def checker(tmp_path_factory: pytest.TempPathFactory) -> Checker:
    """The program that judges histories, built once for each process of the tests."""
    return build(tmp_path_factory.mktemp("checker"))
