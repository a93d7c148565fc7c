"""The project of examples/ whose tests use the fixtures of haptera.testing: they pass, and see a broken one."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.support.programs import EXAMPLES
from tests.unit.testing.test_plugin import run_pytest

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("pyproject.toml", "conftest.py", "inventory.py", "test_inventory.py")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project."""
    for name in NAMES:
        shutil.copy(EXAMPLES / "pytest_inventory" / name, tmp_path)
    return tmp_path


def test_the_tests_of_the_project_pass(project: Path) -> None:
    done = run_pytest(project)
    assert "10 passed" in done.stdout, done.stdout + done.stderr


def test_the_tests_of_the_project_notice_a_reservation_that_locks_nothing(project: Path) -> None:
    inventory = project / "inventory.py"
    text = inventory.read_text()
    broken = text.replace("                    self._stock.within(tx).set(entry.key, entry.value)\n", "")
    assert broken != text
    inventory.write_text(broken)
    done = run_pytest(project)
    assert "test_customers_who_come_at_once_are_not_promised_more_than_there_is" in done.stdout, done.stdout
    assert " failed" in done.stdout
