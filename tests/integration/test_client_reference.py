"""Every example of docs/client.md is run, and every public name of the classes that it describes is on the page."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import haptera
from haptera import recipes
from haptera.client import Administration
from haptera.testing import node

PAGE = (Path(__file__).parents[2] / "docs" / "client.md").read_text(encoding="utf-8")

NOT_FOR_APPLICATIONS = {
    # the library's own parts call these
    *("abandon", "abort_reason", "add_item", "begun", "cancel", "check_loop", "disown", "end_task", "finish_items"),
    *("has_loop", "left_behind", "kept", "log_fields", "make_room", "received", "span", "task", "used", "wake"),
}


async def test_every_example_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    async with node(listen="tcp") as url:
        monkeypatch.setenv("HAPTERA_URL", url)
        for example in re.finditer(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
            line = PAGE.count("\n", 0, example.start()) + 1
            source = "\n" * line + example[1]  # an error names the line of the page
            code = compile(source, "docs/client.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            result = eval(code, namespace)  # it awaits at its top level, as `python -m asyncio` does
            if inspect.isawaitable(result):
                await result


@pytest.mark.parametrize(
    "described",
    [
        *(haptera.Backup, haptera.Database, haptera.Entry, haptera.Scan, haptera.Peer, haptera.Request),
        *(haptera.Transaction, haptera.TransactResult, Administration),
        *(getattr(recipes, name) for name in recipes.__all__),
    ],
)
def test_every_public_name_is_described(described: type) -> None:
    names = {name for name in dir(described) if not name.startswith("_")} - NOT_FOR_APPLICATIONS
    tables = "\n".join(line.partition(" | ")[0] for line in PAGE.splitlines() if line.startswith("| "))
    named = set(re.findall(r"`(\w+)", tables)) | set(re.findall(r"^`(\w+)\(", PAGE, re.MULTILINE))
    assert names - named == set()


@pytest.mark.parametrize("name", ["connect", "open"])
def test_the_arguments_that_open_a_store_are_described(name: str) -> None:
    signature = re.search(rf"`haptera\.{name}\((.*?)\)`", PAGE)
    assert signature is not None
    described = set(re.findall(r"\w+", re.sub(r"=[^,]+", "", signature[1])))
    assert set(inspect.signature(getattr(haptera, name)).parameters) == described


@pytest.mark.parametrize("name", [name for name in dir(haptera.Database) if not name.startswith("_")])
def test_the_arguments_of_a_call_are_described(name: str) -> None:
    call = getattr(haptera.Database, name)
    if isinstance(call, property):
        return
    signature = re.search(rf"^(?:\| )?`{name}\((.*?)\)`", PAGE, re.MULTILINE)
    assert signature is not None
    described = set(re.findall(r"\w+", re.sub(r"=\S+", "", signature[1])))
    # Each call has a timeout, which the page says once.
    assert set(inspect.signature(call).parameters) - {"self", "timeout"} <= described
