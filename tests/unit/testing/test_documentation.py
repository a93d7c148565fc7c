"""Every example of docs/testing.md is run, and every public name is what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import haptera.testing
from tests.unit.testing.test_plugin import run_pytest

DOCUMENT = Path(__file__).parents[3] / "docs" / "testing.md"


def test_every_example_of_the_documentation_runs(tmp_path: Path) -> None:
    examples = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    code = "\n\n".join(examples)
    (tmp_path / "test_examples.py").write_text(code)
    process = run_pytest(tmp_path, "-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function")
    count = len(re.findall(r"^(?:async )?def test_", code, re.MULTILINE))
    assert count >= len(examples)
    assert f"{count} passed" in process.stdout, process.stdout + process.stderr


@pytest.mark.parametrize("name", haptera.testing.__all__)
def test_a_public_name_leads_to_something(name: str) -> None:
    assert getattr(haptera.testing, name) is not None
    assert name in dir(haptera.testing)


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        haptera.testing.no_such_name  # type: ignore[attr-defined]  # noqa: B018
