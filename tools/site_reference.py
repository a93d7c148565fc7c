"""Makes the pages of the site that list the public names of each public module, from their docstrings."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

from tools.markdown_links import ROOT

if TYPE_CHECKING:
    from pathlib import Path

#: The modules that programs import, as ARCHITECTURE.md names them.
MODULES: Final = (
    "haptera",
    "haptera.authentication",
    "haptera.cafe",
    "haptera.errors",
    "haptera.notebook",
    "haptera.recipes",
    "haptera.sync",
    "haptera.testing",
    "haptera.typed",
)
#: Names that have a page of their own, or nothing to tell.
NO_ENTRY: Final = frozenset({"__version__", "errors"})
#: Members that other parts of the library call, and programs do not.
INTERNAL: Final = {
    "haptera.Call": ("add_entries", "release", "wake"),
    "haptera.Server": ("established", "lost", "opened", "tls_failed"),
    "haptera.testing.Direction": ("cross",),
    "haptera.testing.MemoryFileSystem": ("called",),
    "haptera.testing.MemoryLink": ("start",),
    "haptera.testing.MemoryTransport": ("deliver", "deliver_eof", "deliver_reset", "make_room"),
    "haptera.testing.Network": ("bind", "connect", "resolve"),
    "haptera.testing.Proxy": ("disown", "start"),
    "haptera.testing.Recording": ("add",),
    "haptera.testing.VirtualClockLoop": ("boot_time_ns", "turn"),
}


def stage(target: Path) -> None:
    """Write a page for each public module below ``target``."""
    folder = target / "reference"
    folder.mkdir(parents=True, exist_ok=True)
    for module in MODULES:
        (folder / f"{module}.md").write_text(page(module), encoding="utf-8")


def page(module: str) -> str:
    """Return the page of a module: its docstring, and an entry for each name of its ``__all__``."""
    tree = ast.parse(_source(module).read_text(encoding="utf-8"))
    head = f"# `{module}`\n\n{_introduction(ast.get_docstring(tree) or '')}\n"
    entries = [_entry(f"{module}.{name}") for name in _names(module, tree)]
    return "\n".join([head, *entries])


def _entry(name: str) -> str:
    """Return the entry of a public name, without the members that are for the library."""
    hidden = "".join(f', "!^{member}$"' for member in INTERNAL.get(name, ()))
    return f"::: {name}\n" + (f'    options:\n      filters: ["!^_"{hidden}]\n' if hidden else "")


def _source(module: str) -> Path:
    path = ROOT / "src" / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _introduction(text: str) -> str:
    """Return a module's docstring in Markdown: columns of names and examples stand at the margin of some."""
    return text.replace("``", "`")


def _names(module: str, tree: ast.Module) -> list[str]:
    """Return the names that a module gives, classes behind functions no more than in its own list."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [name for name in ast.literal_eval(node.value) if name not in NO_ENTRY]
    raise ValueError(f"{module} has no __all__")
