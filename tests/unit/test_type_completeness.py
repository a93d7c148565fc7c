"""Every name that users may import has its types written down, as pyright reads a package (``--verifytypes``).

Each parameter, result and attribute of a public name, and of the public members of a class, has an annotation that
leaves nothing to guess. Pyright looks at classes of the inside too, as far as a signature leads to them; their
attributes may be inferred, because no program uses them.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

import haptera

SOURCE: Final = Path(haptera.__file__).parent
PYRIGHT: Final = shutil.which("pyright", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
PUBLIC: Final = ("haptera", "haptera.authentication", "haptera.errors", "haptera.recipes", "haptera.sync")
PUBLIC_TOO: Final = ("haptera.notebook", "haptera.testing", "haptera.typed")

#: Words of pyright for a type that is not written down, or whose annotation leads to nothing.
INCOMPLETE: Final = ("missing type annotation", "annotation is missing", "is unknown", "missing type argument")


def written_in(thing: Any) -> str | None:
    """The full name under which pyright knows a class or a function of ours: that of the module it is written in."""
    if not (inspect.isclass(thing) or inspect.isfunction(thing)):
        return None
    file = Path(inspect.getsourcefile(inspect.unwrap(thing)) or "")
    if SOURCE not in file.parents:
        return None
    module = ".".join(("haptera", *file.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")
    return f"{module}.{thing.__qualname__}"


@functools.cache
def public_names() -> frozenset[str]:
    """The full names of what users may import."""
    modules = [importlib.import_module(name) for name in (*PUBLIC, *PUBLIC_TOO)]
    names = (
        written_in(getattr(module, name)) for module in modules for name in dir(module) if not name.startswith("_")
    )
    return frozenset(name for name in names if name is not None)


def is_public(symbol: str) -> bool:
    """Whether it is a public name, or a public or special member of one."""
    for name in public_names():
        if symbol == name or symbol.startswith(f"{name}."):
            members = symbol[len(name) :].split(".")
            return not any(each.startswith("_") and not each.startswith("__") for each in members)
    return False


def incomplete(symbols: list[dict[str, Any]]) -> list[str]:
    """The complaints about public names."""
    return [
        f"{symbol['name']}: {complaint['message']}"
        for symbol in symbols
        if is_public(symbol["name"])
        for complaint in symbol["diagnostics"]
        if complaint["severity"] == "error" and any(words in complaint["message"] for words in INCOMPLETE)
    ]


def test_a_type_that_is_not_written_down_is_seen() -> None:
    complaint = {"severity": "error", "message": "Type is missing type annotation and could be inferred differently"}
    symbols = [
        {"name": name, "diagnostics": [complaint]}
        for name in ("haptera.peer.peer.Peer.dialled", "haptera.peer.peer.Peer._link", "haptera.peer.link.Link.loop")
    ]
    assert [each.partition(":")[0] for each in incomplete(symbols)] == ["haptera.peer.peer.Peer.dialled"]


@pytest.mark.timeout(600)  # it reads all sources: 15 seconds of one core
@pytest.mark.skipif(PYRIGHT is None, reason="pyright is not installed; .ci/run installs it")
def test_every_public_name_has_its_types_written_down(tmp_path: Path) -> None:
    assert PYRIGHT is not None
    folder = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "VIRTUAL_ENV": str(folder.parent)}
    command = [PYRIGHT, "--verifytypes", "haptera", "--ignoreexternal", "--outputjson"]
    # In a folder of its own: where a folder is named haptera, pyright would take it for the package.
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    report = json.loads(done.stdout)["typeCompleteness"]
    assert report["pyTypedPath"].endswith("py.typed")
    found = [symbol["name"] for symbol in report["symbols"] if is_public(symbol["name"])]
    assert len(found) > 1000, "pyright has not seen the public names"
    assert incomplete(report["symbols"]) == []
